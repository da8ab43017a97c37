"""Fetches a snapshot from the leader when this node is too far behind for the log.

A few pieces are asked for at a time, and no faster than the settings allow, so that the leader's
other work and this connection's heartbeats come in between. Pieces fetched before an interruption
are used again, whoever leads then: replicas are equal byte for byte.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from ..storage.log import LogState
from . import upstream
from .install import BadSnapshot, Held, Staging, plan
from .jobs import Jobs
from .messages import Message, SnapshotData, SnapshotOffer, SnapshotRead
from .runtime import Lane
from .snapshot import BadCheckpoint, log_states
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
"""Asked for, and written and synced, at once. What an earlier version may have left unsynced is no
more than that, so it must not get smaller."""
PIECES_UNDER_WAY = 4
ASK_AGAIN_S = 1.0
"""A question or its answer may be lost with a connection."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Bytes of the leader's; of its checkpoint without a stream."""

    stream_id: int | None
    base_offset: int
    position: int
    length: int
    generation: int = 0


@dataclass(slots=True)
class Asked:
    """Wait for these bytes, which were asked for."""

    request: int
    ask: Ask
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait until then, by `upstream.now`."""

    until: float


Write: TypeAlias = Callable[[int, bytes], None]
"""Write bytes that begin at a position."""
Job: TypeAlias = Callable[[], Any]
"""Wait for a job on the streams lane."""
Steps: TypeAlias = Generator[Asked | Pause | Job, Any, None]


class Catchup:
    def __init__(
        self,
        staging: Staging,
        stream_files: StreamFiles,
        jobs: Jobs,
        send: Callable[[str, Message], object],
        on_fetched: Callable[[], None],
        bytes_per_s: int,
    ) -> None:
        """`on_fetched`: a snapshot is complete, this node has to open its folder anew.

        `bytes_per_s`: no more is asked for.
        """
        self._staging = staging
        self._stream_files = stream_files
        self._jobs = jobs
        self._send = send
        self._on_fetched = on_fetched
        self._offer: SnapshotOffer | None = None
        self._leader = ""
        self._steps: Steps | None = None
        self._asked: dict[int, Asked] = {}
        """Under way or arrived, by request, oldest first."""
        self._awaited: Asked | None = None
        self._request = 0
        self._asked_at = 0.0
        self._bytes_per_s = bytes_per_s
        self._next_ask_at = 0.0

    @property
    def index(self) -> int | None:
        """What the snapshot being fetched covers; None if none is."""
        return self._offer.index if self._offer is not None and self._steps is not None else None

    def offered(self, leader: str, offer: SnapshotOffer) -> None:
        """The leader has a snapshot for this node; it says so again with every heartbeat."""
        known = self._offer
        same = known is not None and (known.index, known.size) == (offer.index, offer.size)
        if self._steps is None or leader != self._leader or not same:
            logger.info("fetches a snapshot", extra={"leader": leader, "index": offer.index})
            self._give_up()
            self._leader, self._offer = leader, offer
            self._steps = self._fetch(offer)
            self._go(None)
        elif self._awaited is not None and upstream.now() - self._asked_at > ASK_AGAIN_S:
            for asked in self._asked.values():
                if asked.data is None:
                    self._send_ask(asked)

    def _give_up(self) -> None:
        """What was asked for a former snapshot is no answer for another one."""
        self._steps = self._awaited = None
        self._asked.clear()

    def cancel(self) -> None:
        """The log will do after all."""
        self._give_up()
        self._jobs.run(Lane.STREAMS, self._staging.discard)

    def arrived(self, leader: str, message: SnapshotData) -> None:
        asked = self._asked.get(message.request)
        if leader != self._leader or asked is None or asked.data is not None:
            return
        if message.data is None or len(message.data) != asked.ask.length:
            self._give_up()
            return
        asked.data = message.data
        if asked is self._awaited:
            self._go(self._take(asked))

    def _take(self, asked: Asked) -> bytes | None:
        self._awaited = None
        del self._asked[asked.request]
        return asked.data

    def _fetch(self, offer: SnapshotOffer) -> Steps:
        staging = self._staging
        yield staging.begin
        for path in (yield staging.doubtful):
            yield partial(staging.settle, path, PIECE_BYTES)
        checkpoint = _asks(None, 0, 0, offer.size)
        yield from self._receive((staging.write_checkpoint, ask) for ask in checkpoint)
        wanted, held = yield self._compare
        pieces = plan(wanted, held)
        starts = yield lambda: [piece.start + staging.staged_bytes(piece) for piece in pieces]
        yield from self._receive(
            (partial(staging.write_piece, piece), ask)
            for piece, start in zip(pieces, starts, strict=True)
            for ask in _asks(piece.stream_id, piece.base_offset, start, piece.end, piece.generation)
        )
        yield partial(staging.commit, pieces, held)
        size = sum(piece.end - piece.start for piece in pieces)
        logger.info("fetched a snapshot", extra={"index": offer.index, "segment_bytes": size})
        self._on_fetched()

    def _receive(self, wanted: Iterable[tuple[Write, Ask]]) -> Steps:
        """Ask for all of it, a few pieces at a time, and have them written in turn."""
        under_way: deque[tuple[Write, Asked]] = deque()
        for write, ask in wanted:
            if len(under_way) == PIECES_UNDER_WAY:
                yield from _written(*under_way.popleft())
            if self._next_ask_at > upstream.now():
                yield Pause(self._next_ask_at)
            under_way.append((write, self._ask_for(ask)))
        while under_way:
            yield from _written(*under_way.popleft())

    def _compare(self) -> tuple[dict[int, LogState], dict[int, Held]]:
        """What the snapshot lists, and what is here (durable from now on). Raises BadSnapshot."""
        try:
            wanted = log_states(self._staging.checkpoint_sections())
        except BadCheckpoint as error:
            raise BadSnapshot(str(error)) from error
        return wanted, self._stream_files.held(wanted)

    def _go(self, result: Any) -> None:
        """Take the next step."""
        while (steps := self._steps) is not None:
            try:
                step = steps.send(result)
            except StopIteration:
                self._give_up()
                return
            if not isinstance(step, Asked):
                self._wait(steps, step)
                return
            if step.data is None:
                self._awaited = step
                return
            result = self._take(step)

    def _wait(self, steps: Steps, step: Job | Pause) -> None:
        if isinstance(step, Pause):
            self._jobs.call_at(step.until, partial(self._resume, steps))
        else:
            self._jobs.run(Lane.STREAMS, step, partial(self._done, steps))

    def _resume(self, steps: Steps) -> None:
        if steps is self._steps:
            self._go(None)

    def _done(self, steps: Steps, done: Future[Any]) -> None:
        """A disk error counts also when the fetch was given up: nothing more may be staged then."""
        try:
            result = done.result()
        except BadSnapshot as error:
            if steps is self._steps:
                logger.error("a snapshot was bad", extra={"reason": str(error)})
                self._give_up()
        else:
            if steps is self._steps:
                self._go(result)

    def _ask_for(self, ask: Ask) -> Asked:
        self._request += 1
        asked = self._asked[self._request] = Asked(self._request, ask)
        due = max(self._next_ask_at, upstream.now())
        self._next_ask_at = due + ask.length / self._bytes_per_s
        self._send_ask(asked)
        return asked

    def _send_ask(self, asked: Asked) -> None:
        ask, offer = asked.ask, self._offer
        assert offer is not None
        self._asked_at = upstream.now()
        place = (ask.stream_id, ask.base_offset, ask.position, ask.length, ask.generation)
        self._send(self._leader, SnapshotRead(asked.request, offer.index, *place))


def _asks(
    stream_id: int | None, base_offset: int, start: int, end: int, generation: int = 0
) -> Iterator[Ask]:
    for position in range(start, end, PIECE_BYTES):
        length = min(PIECE_BYTES, end - position)
        yield Ask(stream_id, base_offset, position, length, generation)


def _written(write: Write, asked: Asked) -> Steps:
    data = yield asked
    yield partial(write, asked.ask.position, data)
