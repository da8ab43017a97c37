"""A worker process: one job in, one share out.

    stdin:  the job, one line of JSON      stdout:  `ready`
            the common start, seconds               the share, one line of JSON

Several processes, because one Python client uses one processor: with readers by the dozen, or on
more than one producer, it would measure itself.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
from collections.abc import Sequence

from .case import Job, Kind
from .loads import OpenTarget, run_job
from .target import CuteTarget, Target


def open_cute(servers: Sequence[str], job: Job) -> Target:
    return CuteTarget(servers, job.case)


def serve(open_target: OpenTarget) -> None:
    """Do the job that comes on stdin."""
    job = Job.from_dict(json.loads(sys.stdin.readline()))

    async def started() -> float:
        print("ready", flush=True)
        return float(await asyncio.to_thread(sys.stdin.readline))

    with asyncio.Runner(loop_factory=_precise_loop if _is_paced(job) else None) as runner:
        share = runner.run(run_job(job, open_target, started))
    print(json.dumps(share.to_dict()), flush=True)


def _is_paced(job: Job) -> bool:
    return job.role == "produce" and job.kind in (Kind.FIXED_RATE, Kind.TAIL)


def _precise_loop() -> asyncio.AbstractEventLoop:
    """epoll waits for whole milliseconds, rounded up; select does not, and descriptors are few."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    serve(open_cute)
