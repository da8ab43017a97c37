"""Lanes: producers of which one-shot appends borrow a sequence number each.

A *lane* is one registered producer with its next sequence per stream. An append that carries a
sequence is appended once however often it is sent, so every append can be retried safely.

- A lane serves one append at a time: its sequences reach the cluster in order.
- It returns to the pool only when the outcome is definite. After an unknown outcome nobody may use
  that sequence again, because a late copy of the append could take it: the lane is thrown away.
- A refusal does not use up the sequence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from .answers import Receipt
from .errors import OutOfOrderSequence, ProducerExpired, ProducerFenced, Refused, Throttled
from .retry import Attempts, settled

LANES_MAX = 64
_LOST_MAX = 3
"""New lanes tried for one append when the cluster does not know the lane any more."""

Stamp = tuple[int, int, int]
"""Producer id, epoch, sequence."""

PRODUCER_LOST = (OutOfOrderSequence, ProducerExpired, ProducerFenced)


@dataclass(slots=True)
class Lane:
    id: int
    epoch: int
    _sequences: dict[str, int] = field(default_factory=dict)

    def stamp(self, stream: str) -> Stamp:
        return (self.id, self.epoch, self._sequences.get(stream, 0))

    def advance(self, stream: str) -> None:
        self._sequences[stream] = self._sequences.get(stream, 0) + 1


class LanePool:
    """Used on one event loop. `register` obtains a producer id and epoch by a deadline."""

    def __init__(
        self, register: Callable[[float], Awaitable[tuple[int, int]]], lanes_max: int = LANES_MAX
    ) -> None:
        self._register = register
        self._slots = asyncio.Semaphore(lanes_max)
        self._free: list[Lane] = []

    async def append(
        self,
        stream: str,
        send: Callable[[Stamp], Awaitable[Receipt]],
        attempts: Attempts,
        *,
        if_offset: int | None = None,
    ) -> Receipt:
        """Run `send` with the stamp of a free lane; wait for one if all are taken.

        `send` notes in `attempts` if an attempt was left unanswered. Raises what `send` raises,
        OutcomeUnknown in place of a refusal that does not settle an unanswered attempt, Throttled
        when no lane became free in time.
        """
        if self._slots.locked():
            await self._wait_for_slot(attempts)
        else:
            await self._slots.acquire()  # at once: no timer is needed
        try:
            for lost in range(_LOST_MAX + 1):
                lane = await self._take(attempts)
                try:
                    return await self._append_on(lane, stream, send, attempts, if_offset)
                except PRODUCER_LOST:
                    # Lanes of the same age are lost alike: expired, or the cluster was restored.
                    self._free.clear()
                    if lost == _LOST_MAX:
                        raise
            raise AssertionError("unreachable")
        finally:
            self._slots.release()

    async def _wait_for_slot(self, attempts: Attempts) -> None:
        try:
            # Not wait_for: Python 3.11's swallows a cancellation that comes with the result.
            async with asyncio.timeout(attempts.remaining_s(monotonic())):
                await self._slots.acquire()
        except TimeoutError:
            raise Throttled("as many appends as this client allows are under way") from None

    async def _append_on(
        self,
        lane: Lane,
        stream: str,
        send: Callable[[Stamp], Awaitable[Receipt]],
        attempts: Attempts,
        if_offset: int | None,
    ) -> Receipt:
        is_reusable = False
        try:
            receipt = await send(lane.stamp(stream))
            lane.advance(stream)
            is_reusable = True
            return receipt
        except Refused as refusal:
            is_reusable = not attempts.unanswered and not isinstance(refusal, PRODUCER_LOST)
            failure = settled(refusal, unanswered=attempts.unanswered, if_offset=if_offset)
            if failure is refusal:
                raise
            raise failure from refusal
        finally:
            if is_reusable:
                self._free.append(lane)

    async def _take(self, attempts: Attempts) -> Lane:
        if self._free:
            return self._free.pop()
        producer_id, epoch = await self._register(attempts.deadline)
        return Lane(producer_id, epoch)
