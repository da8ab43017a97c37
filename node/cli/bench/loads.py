"""What a worker does, from a start that all workers share.

    start ── warm-up ──> begin ── measured ──> end

Times are of the monotonic clock, which all processes of a machine share. What is acknowledged or
delivered in `[begin, end)` counts; at a fixed rate, what was *due* in it, however late it came.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import cycle, islice

from .case import DUE_BYTES, Job, Kind
from .share import Share
from .target import Sender, Target

POOL_BYTES = 4 * 1024 * 1024
UNDER_WAY_MAX = 4096
"""Appends of a fixed rate under way; beyond it they start late, which their latency includes."""
GRACE_S = 30.0
"""How long readers wait for what was appended in time."""

_DUE = struct.Struct("<d")

OpenTarget = Callable[[Sequence[str], Job], Target]


@dataclass(frozen=True, slots=True)
class Window:
    start: float
    begin: float
    end: float

    def has(self, moment: float) -> bool:
        return self.begin <= moment < self.end


def values_of(value_bytes: int) -> Iterator[bytes]:
    """Yield values of random bytes for ever, a new one each time until 4 MiB are made."""
    count = max(1, min(1024, POOL_BYTES // value_bytes))
    return cycle([os.urandom(value_bytes) for _ in range(count)])


def due_times(start: float, rate: float, count: int) -> Iterator[float]:
    """Yield when each of `count` appends is due; free of drift."""
    return (start + i / rate for i in range(count))


async def run_job(
    job: Job, open_target: OpenTarget, started: Callable[[], Awaitable[float]]
) -> Share:
    """Prepare, wait for the common start, do the job and return what was counted."""
    share = Share()
    targets = _targets(job, open_target)
    try:
        start = await started()
        begin = start + job.case.warm_up_s
        window = Window(start, begin, begin + job.case.seconds)
        cpu_s = time.process_time()
        await asyncio.sleep(start - time.monotonic())
        await _work(job, targets, window, share)
        share.seconds = time.monotonic() - start
        share.cpu_s = time.process_time() - cpu_s
    finally:
        for target in targets:
            await target.close()
    return share


def _targets(job: Job, open_target: OpenTarget) -> list[Target]:
    """Producers of a worker share a client; readers are strangers to each other, as in life."""
    if job.role == "produce":
        return [open_target(job.servers, job)]
    rotations = [
        [*job.servers[i % len(job.servers) :], *job.servers[: i % len(job.servers)]]
        for i in range(len(job.streams))
    ]
    return [open_target(servers, job) for servers in rotations]


async def _work(job: Job, targets: list[Target], window: Window, share: Share) -> None:
    if job.role == "read":
        one = _follow if job.kind is Kind.TAIL else _catch_up
        reading = (
            one(target, stream, job, window, share)
            for target, stream in zip(targets, job.streams, strict=True)
        )
        await asyncio.gather(*reading)
    elif job.kind in (Kind.FIXED_RATE, Kind.TAIL):
        await _pace(targets[0], job, window, share)
    else:
        produce = _one_by_one if job.kind is Kind.ONE_IN_FLIGHT else _pipeline
        await asyncio.gather(*(produce(targets[0], s, job, window, share) for s in job.streams))


async def _one_by_one(target: Target, stream: str, job: Job, window: Window, share: Share) -> None:
    values = values_of(job.case.value_bytes)
    while (sent_at := time.monotonic()) < window.end:
        await _append(target, stream, next(values), sent_at, window, share)


async def _append(
    target: Target, stream: str, value: bytes, since: float, window: Window, share: Share
) -> None:
    """Append one value; it counts if `since` lies in the measured time."""
    try:
        await target.append(stream, value)
    except Exception as failure:  # whatever the client of the system under test raises
        share.fail(failure)
        await asyncio.sleep(0.01)
        return
    share.total += 1
    if window.has(since):
        share.records += 1
        share.latencies.add(time.monotonic() - since)


async def _pipeline(target: Target, stream: str, job: Job, window: Window, share: Share) -> None:
    """Send until the time is up, or for a fill all of `job.records`."""
    values = values_of(job.case.value_bytes)
    step = target.values_per_send(job.case.value_bytes)
    sent = 0
    async with target.sender(stream) as sender:
        while sent < job.records if job.records else time.monotonic() < window.end:
            count = min(step, job.records - sent) if job.records else step
            await _send(sender, [*islice(values, count)], window, share)
            sent += count


async def _send(sender: Sender, values: list[bytes], window: Window, share: Share) -> None:
    sent_at = time.monotonic()

    def acknowledged(failure: BaseException | None) -> None:
        if failure is not None:
            share.fail(failure, len(values))
            return
        now = time.monotonic()
        share.total += len(values)
        if window.has(now):
            share.records += len(values)
            share.latencies.add(now - sent_at)

    await sender.send(values, acknowledged)


async def _pace(target: Target, job: Job, window: Window, share: Share) -> None:
    """Append at fixed times, whether or not earlier appends are done."""
    values = values_of(job.case.value_bytes)
    under_way = asyncio.Semaphore(UNDER_WAY_MAX)
    tasks: set[asyncio.Task[None]] = set()

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        under_way.release()

    # A tail's readers wait for as many of each stream.
    count = round(job.rate * (window.end - window.start))
    if job.kind is Kind.TAIL:
        count = job.case.paced_per_stream * len(job.streams)
    for i, due in enumerate(due_times(window.start, job.rate, count)):
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        await under_way.acquire()
        value = next(values)
        if job.kind is Kind.TAIL:
            value = stamped(value, due)
        stream = job.streams[i % len(job.streams)]
        task = asyncio.create_task(_append(target, stream, value, due, window, share))
        tasks.add(task)
        task.add_done_callback(done)
    await asyncio.gather(*tasks)


def stamped(value: bytes, due: float) -> bytes:
    """Return the value with the time it was due in its first eight bytes."""
    return _DUE.pack(due) + value[DUE_BYTES:]


async def _follow(target: Target, stream: str, job: Job, window: Window, share: Share) -> None:
    """Read what arrives until all of it is here."""
    missing = job.records
    try:
        async with (
            asyncio.timeout(window.end + GRACE_S - time.monotonic()),
            aclosing(target.follow(stream)) as arriving,
        ):
            async for values in arriving:
                _count_delivered(values, window, share)
                missing -= len(values)
                if missing <= 0:
                    return
    except TimeoutError:
        late = TimeoutError(f"{missing} records of {stream} did not reach a reader")
        share.fail(late, missing)


def _count_delivered(values: Sequence[bytes], window: Window, share: Share) -> None:
    now = time.monotonic()
    share.total += len(values)
    for value in values:
        (due,) = _DUE.unpack_from(value)
        if window.has(due):
            share.records += 1
            share.latencies.add(now - due)


async def _catch_up(target: Target, stream: str, job: Job, window: Window, share: Share) -> None:
    count = 0
    async with aclosing(target.read(stream, job.records)) as pages:
        async for values in pages:
            count += len(values)
    share.records += count
    share.total += count
    if count != job.records:
        share.fail(ValueError(f"{stream}: {count} of {job.records} records read"))
