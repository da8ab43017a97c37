"""A load's worker process on a peer: `python worker.py NAME`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cute_logger.node.cli.bench.case import Job
from cute_logger.node.cli.bench.target import Target
from cute_logger.node.cli.bench.worker import serve
from peers import load


def main() -> None:
    module = load(sys.argv[1])

    def open_target(servers: Sequence[str], job: Job) -> Target:
        target: Target = module.Target(servers, job.case)
        return target

    serve(open_target)


if __name__ == "__main__":
    main()
