"""Load on a cluster, measured: `cute bench` and the scripts in `deploy/`.

    case ──> jobs, one per worker process ──> shares ──> outcome

`case` says what is wanted and how it is shared out, `loads` does it in a worker, `runner` starts
the workers and adds up. The workers know the system under test by `target.Target` alone.
"""
