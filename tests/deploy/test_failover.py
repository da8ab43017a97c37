"""Losses of a leader on a log in memory: how long the gap was, and what became of its records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import cast

from figures import fail_over
from systems import System

STALL_S = 0.3


@dataclass
class MemorySystem:
    """A system and its client in one; a loss of its leader stalls appends."""

    forgets: bool = False
    repeats: bool = False
    healed: int = 0
    values: list[bytes] = field(default_factory=list)
    streams: set[str] = field(default_factory=set)
    _may_append: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._may_append.set()

    def target(self) -> MemorySystem:
        return self

    async def lose_leader(self) -> None:
        if self.forgets:
            self.values.pop()
        if self.repeats:
            self.values.append(self.values[-1])
        self._may_append.clear()
        asyncio.get_running_loop().call_later(STALL_S, self._may_append.set)

    async def heal(self) -> None:
        self.healed += 1

    async def create(self, stream: str) -> None:
        self.streams.add(stream)

    async def remove(self, stream: str) -> None:
        self.streams.remove(stream)

    async def append(self, stream: str, value: bytes) -> None:
        await self._may_append.wait()
        self.values.append(value)

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        yield self.values

    async def close(self) -> None: ...


async def test_the_gap_is_the_time_without_acknowledgements() -> None:
    system = MemorySystem()
    found = await fail_over(cast(System, system), system.lose_leader, 2)
    assert len(found.gaps_s) == 2
    assert all(STALL_S * 0.9 < gap < STALL_S * 3 for gap in found.gaps_s)
    assert all(gap < STALL_S * 0.9 for gap in found.return_gaps_s)
    assert (found.lost, found.doubled, found.failed, system.healed) == (0, 0, 0, 2)
    assert found.acknowledged == len(system.values) - 1  # the last is the check's own
    assert not system.streams


async def test_what_was_acknowledged_and_is_gone_is_lost() -> None:
    system = MemorySystem(forgets=True)
    assert (await fail_over(cast(System, system), system.lose_leader, 1)).lost == 1


async def test_what_is_there_twice_is_doubled() -> None:
    system = MemorySystem(repeats=True)
    assert (await fail_over(cast(System, system), system.lose_leader, 1)).doubled == 1
