"""Start the workers of a case, let them begin together, add up what they counted."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from .case import Case, Job, fill_of, jobs_of
from .share import Outcome, Share, outcome_of
from .target import Target

WORKER = (sys.executable, "-P", "-m", "cute_logger.node.cli.bench.worker")
READY_S = 60.0
LEAD_S = 0.05
"""From the word to start to the start: all workers have read it by then."""
END_S = 120.0
"""How long after its time a worker may need to finish."""
FILL_S = 600.0
ANSWER_BYTES_MAX = 1 << 20


class WorkerFailed(Exception):
    """A worker ended without an answer; what it said is on stderr."""


async def measure(
    case: Case,
    servers: Sequence[str],
    admin: Target,
    *,
    worker: Sequence[str] = WORKER,
    begins: Callable[[], None] = lambda: None,
) -> Outcome:
    """Create the case's streams through `admin`, measure, and remove them, whatever happens.

    `begins` is called when all workers are ready, just before they start. Raises WorkerFailed,
    TimeoutError.
    """
    async with _streams(case, admin) as streams:
        fill = fill_of(case, servers, streams)
        if fill is not None:
            share = (await _run([fill], worker, FILL_S))[0]
            if share.errors:
                raise WorkerFailed(f"the records to be read could not be appended: {share.error}")
        jobs = jobs_of(case, servers, streams)
        shares = await _run(jobs, worker, case.warm_up_s + case.seconds + END_S, begins)
        return outcome_of(
            case, [(job.role, share) for job, share in zip(jobs, shares, strict=True)]
        )


@asynccontextmanager
async def _streams(case: Case, admin: Target) -> AsyncIterator[list[str]]:
    run = secrets.token_hex(4)
    created: list[str] = []
    try:
        for i in range(case.streams):
            created.append(f"bench-{run}-{i}")
            await admin.create(created[-1])
        yield created
    finally:
        for stream in created:
            await admin.remove(stream)


async def _run(
    jobs: Sequence[Job],
    command: Sequence[str],
    timeout_s: float,
    begins: Callable[[], None] = lambda: None,
) -> list[Share]:
    """Run each job in a process of its own. Raises WorkerFailed, TimeoutError."""
    workers = [await _start(command) for _ in jobs]
    try:
        async with asyncio.timeout(READY_S):
            for worker, job in zip(workers, jobs, strict=True):
                await _tell(worker, json.dumps(job.to_dict()))
            for worker in workers:
                await _line(worker)
        begins()
        start = time.monotonic() + LEAD_S
        for worker in workers:
            await _tell(worker, repr(start))
        async with asyncio.timeout(timeout_s):
            shares = [Share.from_dict(json.loads(await _line(worker))) for worker in workers]
            await asyncio.gather(*(worker.wait() for worker in workers))
            return shares
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
        await asyncio.gather(*(worker.wait() for worker in workers))


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=ANSWER_BYTES_MAX,
        start_new_session=True,  # an interrupt is for the parent, which still has to clean up
    )


async def _tell(worker: asyncio.subprocess.Process, line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line.encode() + b"\n")
    try:
        await worker.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        raise WorkerFailed("a worker ended before it was told what to do") from None


async def _line(worker: asyncio.subprocess.Process) -> str:
    assert worker.stdout is not None
    line = await worker.stdout.readline()
    if not line:
        raise WorkerFailed(f"a worker ended with exit code {await worker.wait()}")
    return line.decode()
