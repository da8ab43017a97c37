"""The batches of one producer that are under way, in the order of their sequences.

    queue ──> flights (at most `in_flight`, sequences k, k+1, …) ──> settled, oldest first

- The cluster appends sequence k+1 of a producer only after k. What overtakes on the network is
  refused with out_of_order_sequence, waits until it is the oldest, and is sent again.
- A flight is settled when it is the oldest and its outcome is final.
- Refused for good: its sequence stays unused, so nothing behind it can have been appended, nor can
  a late copy be. What was behind it goes back into the queue, in order, and is sent by a newly
  registered producer, because a late copy must not find its old sequence in use again.
- Outcome unknown: nothing may be sent after it without a risk to the order. Everything accepted so
  far fails with OutcomeUnknown; later records are sent by a newly registered producer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from .answers import Receipt
from .batch import PendingBatch
from .errors import (
    ClusterUnreachable,
    CuteError,
    OutcomeUnknown,
    OutOfOrderSequence,
    Refused,
    Throttled,
    Unavailable,
)
from .lanes import PRODUCER_LOST
from .retry import Attempts, settled, unknown

_LOSSES_MAX = 3


class Append(Protocol):
    async def __call__(self, stream: str, body: bytes, attempts: Attempts) -> Receipt: ...


@dataclass(slots=True, eq=False)
class _Flight:
    batch: PendingBatch
    stamp: tuple[int, int, int]
    started_at: float
    attempts: Attempts
    is_oldest: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Receipt] | None = None

    def receipt(self) -> Receipt | None:
        """Return the receipt if one has arrived."""
        task = self.task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()


class Window:
    """Used on one event loop; `run` is its one task."""

    def __init__(
        self,
        stream: str,
        *,
        in_flight: int,
        timeout_s: float,
        compression: str | None,
        append: Append,
        register: Callable[[float], Awaitable[tuple[int, int]]],
        close_open_batch: Callable[[], None],
        on_settled: Callable[[PendingBatch], None],
    ) -> None:
        self._stream = stream
        self._in_flight = in_flight
        self._timeout_s = timeout_s
        self._compression = compression
        self._append = append
        self._register = register
        self._close_open_batch = close_open_batch
        self._on_settled = on_settled
        self._queue: deque[PendingBatch] = deque()
        self._flights: deque[_Flight] = deque()
        self._producer: tuple[int, int] | None = None
        self._sequence = 0
        self._wake = asyncio.Event()

    def submit(self, batch: PendingBatch) -> None:
        self._queue.append(batch)
        self._wake.set()

    async def run(self) -> None:
        """Send and settle until cancelled."""
        try:
            while True:
                self._wake.clear()
                while self._flights and _is_done(self._flights[0]):
                    await self._settle_oldest()
                await self._fill()
                if not (self._flights and _is_done(self._flights[0])):
                    await self._wake.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Fail what is left with OutcomeUnknown. `run` must have ended or must not have begun."""
        await self._abandon(OutcomeUnknown("the producer was closed before an answer came"))

    async def _fill(self) -> None:
        while self._queue and len(self._flights) < self._in_flight:
            if self._producer is None and not await self._register_producer():
                continue
            assert self._producer is not None
            started_at = monotonic()
            flight = _Flight(
                self._queue.popleft(),
                (*self._producer, self._sequence),
                started_at,
                Attempts(started_at + self._timeout_s),
            )
            self._sequence += 1
            self._flights.append(flight)
            self._flights[0].is_oldest.set()
            flight.task = asyncio.create_task(self._fly(flight))
            flight.task.add_done_callback(lambda _: self._wake.set())

    async def _register_producer(self) -> bool:
        """Return whether there is a producer now; else fail what has waited for it."""
        started_at = monotonic()
        try:
            self._producer = await self._register(started_at + self._timeout_s)
        except CuteError as failure:
            self._fail_waiting(started_at, failure)
            return False
        self._sequence = 0
        return True

    async def _fly(self, flight: _Flight) -> Receipt:
        """Send until the outcome is final; what overtook an older batch is sent again after it."""
        packed = await flight.batch.packed(self._compression)
        body = packed.with_stamp(flight.stamp)
        while True:
            was_oldest = flight.is_oldest.is_set()
            try:
                return await self._append(self._stream, body, flight.attempts)
            except OutOfOrderSequence:
                if was_oldest:
                    raise
                await flight.is_oldest.wait()
                flight.attempts.deadline = monotonic() + self._timeout_s

    async def _settle_oldest(self) -> None:
        flight = self._flights[0]
        assert flight.task is not None
        try:
            receipt = flight.task.result()
        except PRODUCER_LOST as lost:
            await self._settle_lost(flight, lost)
        except Refused as refusal:
            failure = settled(refusal, unanswered=flight.attempts.unanswered)
            if isinstance(failure, OutcomeUnknown):
                await self._abandon(failure)
            else:
                await self._settle_refused(flight, refusal)
        except OutcomeUnknown as failure:
            await self._abandon(failure)
        else:
            self._flights.popleft()
            if self._flights:
                self._flights[0].is_oldest.set()
            flight.batch.succeed(receipt)
            self._on_settled(flight.batch)

    async def _settle_refused(self, flight: _Flight, refusal: Refused) -> None:
        self._flights.popleft()
        if self._flights or flight.attempts.unanswered:
            await self._recall()
        else:
            self._sequence = flight.stamp[2]
        self._fail(flight.batch, refusal)
        if isinstance(refusal, Unavailable | Throttled | ClusterUnreachable):
            # It was tried as long as allowed. To try each batch behind it as long in turn would
            # make a flush last for hours.
            self._fail_waiting(flight.started_at, refusal)

    async def _settle_lost(self, flight: _Flight, lost: Refused) -> None:
        """Send everything again by another producer, if nothing can have been appended."""
        flight.batch.losses += 1
        if flight.attempts.unanswered:
            await self._abandon(unknown(lost))
        elif flight.batch.losses > _LOSSES_MAX:
            await self._settle_refused(flight, lost)
        else:
            await self._recall()

    async def _recall(self) -> None:
        """Put the batches under way back into the queue, for another producer to send."""
        flights = await self._ground()
        self._queue.extendleft(flight.batch for flight in reversed(flights))

    async def _abandon(self, failure: OutcomeUnknown) -> None:
        """Fail all that was accepted, but for what has its receipt."""
        self._close_open_batch()
        waiting = [*self._queue]
        self._queue.clear()
        try:
            waiting[:0] = [flight.batch for flight in await self._ground()]
        finally:
            for batch in waiting:
                self._fail(batch, failure)

    async def _ground(self) -> list[_Flight]:
        """Stop all flights and return those without a receipt; the producer is given up."""
        flights = list(self._flights)
        self._flights.clear()
        self._producer = None
        tasks = [flight.task for flight in flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        grounded = []
        for flight in flights:
            receipt = flight.receipt()
            if receipt is None:
                grounded.append(flight)
            else:
                flight.batch.succeed(receipt)
                self._on_settled(flight.batch)
        return grounded

    def _fail_waiting(self, since: float, failure: CuteError) -> None:
        """Fail the batches of the queue that were complete at `since`."""
        while self._queue and self._queue[0].closed_at <= since:
            self._fail(self._queue.popleft(), failure)

    def _fail(self, batch: PendingBatch, failure: CuteError) -> None:
        batch.fail(failure)
        self._on_settled(batch)


def _is_done(flight: _Flight) -> bool:
    return flight.task is not None and flight.task.done()
