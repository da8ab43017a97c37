"""What is measured of a system, beside what its clients see: processors, memory, failures."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from processes import cpu_s_of
from systems import System

from cute_logger.node.cli.bench.case import Case
from cute_logger.node.cli.bench.runner import measure
from cute_logger.node.cli.bench.share import Outcome
from cute_logger.node.cli.bench.target import Target

START_TIMEOUT_S = 120.0
TICK_S = 0.005
TICK_TIMEOUT_S = 30.0
TICKS_UNDER_WAY_MAX = 2000
CALM_S = 1.0
"""Writes go on again when there were acknowledgements for so long without a gap."""
CALM_GAP_S = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """One case on one system."""

    outcome: Outcome
    nodes_cpu_s: float

    @property
    def nodes_cpu_us(self) -> float:
        """CPU time of all nodes per record, microseconds."""
        return self.nodes_cpu_s / self.outcome.total * 1e6 if self.outcome.total else 0.0


async def run_case(system: System, admin: Target, case: Case) -> Measured:
    before = 0.0

    def begins() -> None:
        nonlocal before
        before = cpu_s_of(system.pids)

    outcome = await measure(case, system.servers, admin, worker=system.worker, begins=begins)
    return Measured(outcome, cpu_s_of(system.pids) - before)


@asynccontextmanager
async def started(system: System, folder: Path) -> AsyncIterator[tuple[Target, float]]:
    """Start a cluster in a folder; yield a client and the seconds to the first acknowledgement."""
    begun = time.monotonic()
    try:
        await system.start(folder)
        admin = system.target()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _until_done(lambda: admin.create("first"))
                await _until_done(lambda: admin.append("first", b"first"))
            yield admin, time.monotonic() - begun
        finally:
            await admin.close()
    finally:
        await system.stop()


async def _until_done(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        with suppress(Exception):  # whatever a client says of a cluster that is not there yet
            await asyncio.wait_for(work(), 10)
            return
        await asyncio.sleep(0.02)


async def idle_cpu(system: System, seconds: float) -> float:
    """Return which share of one core all nodes together use while nobody asks anything."""
    before = cpu_s_of(system.pids)
    await asyncio.sleep(seconds)
    return (cpu_s_of(system.pids) - before) / seconds


@dataclass
class Ticks:
    """A small append every 5 ms, each for itself, and when each was acknowledged."""

    target: Target
    stream: str
    acknowledged: dict[bytes, float] = field(default_factory=dict)
    failed: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ticks:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        for i in itertools.count():
            task = asyncio.create_task(self._tick(b"tick %d" % i))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(TICK_S)
            while len(self._tasks) >= TICKS_UNDER_WAY_MAX:
                await asyncio.sleep(TICK_S)

    async def _tick(self, value: bytes) -> None:
        try:
            async with asyncio.timeout(TICK_TIMEOUT_S):
                await self.target.append(self.stream, value)
            self.acknowledged[value] = time.monotonic()
        except Exception:  # refused or unknown, in the words of whatever client it is
            self.failed += 1

    async def gap_s(self, moment: float) -> float:
        """Wait until writes go on after `moment`; return the longest time without any."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                await asyncio.sleep(0.05)
                moments = sorted(self.acknowledged.values())
                after = [at for at in moments if at > moment]
                if after and is_calm(after, time.monotonic()):
                    before = [at for at in moments if at <= moment][-1:]
                    return max(b - a for a, b in itertools.pairwise(before + after))


def is_calm(moments: list[float], now: float) -> bool:
    """Whether the last second up to `now` had acknowledgements without a gap."""
    recent = [at for at in moments if at >= now - CALM_S]
    edges = [now - CALM_S, *recent, now]
    return all(b - a < CALM_GAP_S for a, b in itertools.pairwise(edges))


@dataclass(frozen=True, slots=True)
class Failovers:
    gaps_s: list[float]
    """The longest time without an acknowledgement after each loss of the leader."""
    return_gaps_s: list[float]
    """The same after each return of the node that had led."""
    acknowledged: int
    failed: int
    """Refused, or with an unknown outcome."""
    lost: int
    doubled: int


async def fail_over(
    system: System, take_leader_away: Callable[[], Awaitable[None]], times: int
) -> Failovers:
    """Have another node lead again and again under a light load; look for all acknowledged."""
    target = system.target()
    stream = "failover"
    try:
        await target.create(stream)
        gaps, return_gaps = [], []
        async with Ticks(target, stream) as ticks:
            await ticks.gap_s(time.monotonic())
            for _ in range(times):
                moment = time.monotonic()
                await take_leader_away()
                gaps.append(await ticks.gap_s(moment))
                moment = time.monotonic()
                await system.heal()
                return_gaps.append(await ticks.gap_s(moment))
        seen = await _read_back(target, stream)
        await target.remove(stream)
        lost = sum(1 for value in ticks.acknowledged if not seen[value])
        doubled = sum(1 for count in seen.values() if count > 1)
        return Failovers(gaps, return_gaps, len(ticks.acknowledged), ticks.failed, lost, doubled)
    finally:
        await target.close()


async def _read_back(target: Target, stream: str) -> Counter[bytes]:
    await target.append(stream, b"last")
    seen: Counter[bytes] = Counter()
    async with asyncio.timeout(START_TIMEOUT_S), aclosing(target.follow(stream)) as arriving:
        async for values in arriving:
            seen.update(map(bytes, values))
            if seen[b"last"]:
                break
    return seen
