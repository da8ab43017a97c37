"""Fetches a snapshot from the leader when this node is too far behind for the log.

One piece is under way at a time: asked for, written, then the next, so that the leader's other work
and this connection's heartbeats come in between. Pieces fetched before an interruption are used
again, whoever leads then: replicas are equal byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
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
from .snapshot import log_states
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
ASK_AGAIN_S = 1.0
"""A question or its answer may be lost with a connection."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Wait for these bytes from the leader."""

    stream_id: int | None
    base_offset: int
    position: int
    length: int


Job: TypeAlias = Callable[[], Any]
"""Wait for a job on the streams lane."""
Steps: TypeAlias = Generator[Ask | Job, Any, None]


class Catchup:
    def __init__(
        self,
        staging: Staging,
        stream_files: StreamFiles,
        jobs: Jobs,
        send: Callable[[str, Message], None],
        on_fetched: Callable[[], None],
    ) -> None:
        """`on_fetched`: a snapshot is complete, this node has to open its folder anew."""
        self._staging = staging
        self._stream_files = stream_files
        self._jobs = jobs
        self._send = send
        self._on_fetched = on_fetched
        self._offer: SnapshotOffer | None = None
        self._leader = ""
        self._steps: Steps | None = None
        self._ask: Ask | None = None
        self._request = 0
        self._asked_at = 0.0

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
            # What was asked for the former snapshot is no answer for this one.
            self._leader, self._offer, self._ask = leader, offer, None
            self._steps = self._fetch(offer)
            self._go(None)
        elif self._ask is not None and upstream.now() - self._asked_at > ASK_AGAIN_S:
            self._send_ask()

    def cancel(self) -> None:
        """The log will do after all."""
        self._steps = self._ask = None
        self._jobs.run(Lane.STREAMS, self._staging.discard)

    def arrived(self, leader: str, message: SnapshotData) -> None:
        if leader != self._leader or message.request != self._request or self._ask is None:
            return
        self._ask = None
        if message.data is None:
            self._steps = None
        else:
            self._go(message.data)

    def _fetch(self, offer: SnapshotOffer) -> Steps:
        staging = self._staging
        yield staging.begin
        position = 0
        while position < offer.size:
            data = yield Ask(None, 0, position, min(PIECE_BYTES, offer.size - position))
            yield partial(staging.write_checkpoint, position, data)
            position += len(data)
        wanted, held = yield self._compare
        pieces = plan(wanted, held)
        for piece in pieces:
            position = piece.start + (yield partial(staging.staged_bytes, piece))
            while position < piece.end:
                length = min(PIECE_BYTES, piece.end - position)
                data = yield Ask(piece.stream_id, piece.base_offset, position, length)
                yield partial(staging.write_piece, piece, position, data)
                position += len(data)
        yield partial(staging.commit, pieces, held)
        size = sum(piece.end - piece.start for piece in pieces)
        logger.info("fetched a snapshot", extra={"index": offer.index, "segment_bytes": size})
        self._on_fetched()

    def _compare(self) -> tuple[dict[int, LogState], dict[int, Held]]:
        """What the snapshot lists, and what is here (durable from now on)."""
        return log_states(self._staging.checkpoint_sections()), self._stream_files.held()

    def _go(self, result: Any) -> None:
        """Take the next step."""
        steps = self._steps
        if steps is None:
            return
        try:
            step = steps.send(result)
        except StopIteration:
            self._steps = None
            return
        if isinstance(step, Ask):
            self._ask = step
            self._send_ask()
        else:
            self._jobs.run(Lane.STREAMS, step, partial(self._done, steps))

    def _done(self, steps: Steps, done: Future[Any]) -> None:
        if steps is not self._steps:
            return
        try:
            result = done.result()
        except BadSnapshot as error:
            logger.error("a snapshot was bad", extra={"reason": str(error)})
            self._steps = None
        else:
            self._go(result)

    def _send_ask(self) -> None:
        ask, offer = self._ask, self._offer
        assert ask is not None
        assert offer is not None
        self._request += 1
        self._asked_at = upstream.now()
        self._send(
            self._leader,
            SnapshotRead(
                self._request, offer.index, ask.stream_id, ask.base_offset, ask.position, ask.length
            ),
        )
