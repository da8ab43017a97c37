"""Loads on a log in memory whose speed is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from cute_logger.node.cli.bench.case import Case, Job, Kind
from cute_logger.node.cli.bench.loads import due_times, run_job
from cute_logger.node.cli.bench.share import Share
from cute_logger.node.cli.bench.target import Acknowledged, Sender, Target


@dataclass
class MemoryLog:
    """Keeps what is appended; `stall_s` is how long its first append takes."""

    stall_s: float = 0.0
    failure: Exception | None = None
    values: list[bytes] = field(default_factory=list)
    _door: asyncio.Lock = field(default_factory=asyncio.Lock)

    def values_per_send(self, value_bytes: int) -> int:
        return 10

    async def create(self, stream: str) -> None: ...

    async def remove(self, stream: str) -> None: ...

    async def append(self, stream: str, value: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        async with self._door:
            stall_s, self.stall_s = self.stall_s, 0.0
            await asyncio.sleep(stall_s)
        self.values.append(value)

    @asynccontextmanager
    async def sender(self, stream: str) -> AsyncIterator[Sender]:
        yield self

    async def send(self, values: Sequence[bytes], acknowledged: Acknowledged) -> None:
        await asyncio.sleep(0.001)
        self.values += values
        acknowledged(self.failure)

    async def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        yield self.values[:count]

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        seen = 0
        while True:
            if seen < len(self.values):
                yield self.values[seen : (seen := len(self.values))]
            await asyncio.sleep(0.001)

    async def close(self) -> None: ...


async def play(log: MemoryLog, case: Case, role: str = "produce", records: int = 0) -> Share:
    def open_target(servers: Sequence[str], job: Job) -> Target:
        return log

    async def started() -> float:
        return time.monotonic()

    job = Job(case.kind, role, ["http://a"], ["s"], case, case.rate, records)
    return await run_job(job, open_target, started)


def test_due_times_do_not_drift() -> None:
    assert list(due_times(100.0, 4, 3)) == [100.0, 100.25, 100.5]


async def test_a_stall_is_felt_by_every_append_that_was_due_meanwhile() -> None:
    """One append takes 0.2 s and 19 others wait behind it: not one slow sample, but twenty."""
    case = Case(Kind.FIXED_RATE, value_bytes=10, rate=100, seconds=0.4, warm_up_s=0)
    share = await play(MemoryLog(stall_s=0.2), case)
    assert share.records == 40
    assert share.latencies.max_s >= 0.2
    assert 0.05 < share.latencies.percentile_s(75) < 0.2


async def test_what_is_due_in_the_warm_up_is_appended_but_not_measured() -> None:
    case = Case(Kind.FIXED_RATE, value_bytes=10, rate=200, seconds=0.1, warm_up_s=0.1)
    share = await play(MemoryLog(), case)
    assert (share.records, share.total) == (20, 40)


async def test_failures_are_counted_and_do_not_end_the_load() -> None:
    case = Case(Kind.ONE_IN_FLIGHT, value_bytes=10, seconds=0.05, warm_up_s=0)
    share = await play(MemoryLog(failure=OSError("no")), case)
    assert share.errors > 1
    assert (share.records, share.error) == (0, "OSError: no")


async def test_a_pipeline_counts_what_is_acknowledged_in_time() -> None:
    log = MemoryLog()
    case = Case(Kind.PIPELINED, value_bytes=10, seconds=0.1, warm_up_s=0.05)
    share = await play(log, case)
    assert 0 < share.records < share.total == len(log.values)
    assert share.latencies.percentile_s(50) >= 0.001


async def test_a_fill_appends_just_what_was_asked_for() -> None:
    log = MemoryLog()
    await play(log, Case(Kind.PIPELINED, value_bytes=10), records=25)
    assert len(log.values) == 25


async def test_a_reader_that_does_not_find_all_records_fails() -> None:
    case = Case(Kind.CATCH_UP, value_bytes=10)
    complete = await play(MemoryLog(values=[b"v"] * 7), case, "read", records=7)
    assert (complete.records, complete.errors) == (7, 0)
    short = await play(MemoryLog(values=[b"v"] * 6), case, "read", records=7)
    assert short.error == "ValueError: s: 6 of 7 records read"


async def test_a_tail_times_each_record_from_when_it_was_due_until_it_was_read() -> None:
    log = MemoryLog(stall_s=0.1)
    case = Case(Kind.TAIL, value_bytes=16, rate=100, seconds=0.3, warm_up_s=0)
    reading = asyncio.create_task(play(log, case, "read", records=30))
    produced, delivered = await play(log, case), await reading
    assert produced.records == delivered.total == 30
    assert delivered.records == pytest.approx(30, abs=3)  # their windows began at different times
    assert delivered.latencies.max_s >= 0.09
    assert {len(value) for value in log.values} == {16}
