"""Damaged bytes of the streams' segments, replaced from other nodes while everything goes on.

Replicas' segments are equal byte for byte, so what one node cannot read any more another one has.
Whoever comes upon damage reports the place: a reader, a node that wanted a copy, the scrub, the
start. One place at a time is taken up:

    is it still there?  →  ask the leader, then the others  →  mend, and verify what follows

A copy comes checked from the other node's own files, and is checked again here, against its
surroundings too, before anything is written. A place that nobody could help with is tried again
later; one whose stream was deleted or whose segment was trimmed away is forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ..storage.errors import BadCopy, DamagedBatch
from ..storage.names import generation_of
from . import upstream
from .checkpoint_scrub import CheckpointScrub
from .config import Limits
from .jobs import Jobs
from .machine import StateMachine
from .measures import DamagedPlace, Measures
from .messages import Message, RepairData, RepairRead
from .raft import RaftCore
from .runtime import Lane
from .scrub import Scrub
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

PLACES_MAX = 1_000
"""What is found beyond is found again later."""
COPY_BYTES = 256 << 10
"""Asked for at a time; a larger batch comes whole."""
COPY_BYTES_MAX = 1 << 20
ANSWER_S = 1.0
AGAIN_S = 1.0
"""Pause after all nodes were asked in vain; doubles up to …"""
AGAIN_S_MAX = 10.0
AWAY = "away"
"""Of a copy: its node cannot be reached, or did not answer."""
DAMAGED = "damaged"
"""Or the node has none."""
UNFIT = "unfit"
"""It does not belong where this node lacks one."""

Then = Callable[[bool], None]


@dataclass(slots=True)
class Place:
    """The damage at one offset of one stream."""

    stream_id: int
    damage: DamagedBatch
    mended_bytes: int = 0
    failures: int = 0
    again_at: float = 0.0
    copies: dict[str, str] = field(default_factory=dict)
    """What was found of the other nodes' copies when they were last asked, by node."""
    waiting: list[Then] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, int]:
        return self.stream_id, self.damage.offset

    @property
    def generation(self) -> int:
        """Of the segment: another one may be in its place by now."""
        return generation_of(self.damage.path)

    def facts(self) -> dict[str, object]:
        damage = self.damage
        return {"path": damage.path, "position": damage.position, "reason": damage.reason}


class Mended(NamedTuple):
    """What became of an attempt."""

    written_bytes: int = 0
    end_offset: int | None = None
    """The place is mended up to here; None: it is not."""
    damage: DamagedBatch | None = None
    """What is damaged now: before, at or behind the place."""
    refused: str | None = None
    """The copy was bad."""


class Repairs:
    def __init__(
        self,
        *,
        jobs: Jobs,
        core: RaftCore,
        machine: StateMachine,
        stream_files: StreamFiles,
        limits: Limits,
        measures: Measures,
        post: Callable[[str, Message], object],
        wake: Callable[[], None],
        checkpoint_scrub: CheckpointScrub,
    ) -> None:
        """`wake` makes a `poll` come soon."""
        self._jobs = jobs
        self._core = core
        self._machine = machine
        self._stream_files = stream_files
        self._measures = measures
        self._post = post
        self._wake = wake
        self._places: dict[tuple[int, int], Place] = {}
        self._current: Place | None = None
        self._peers: list[str] = []
        """Whom to ask next about the current place."""
        self._asked: str | None = None
        self._asked_at = 0.0
        self._request = 0
        self._scrub = Scrub(jobs, machine, stream_files, limits, measures, self, checkpoint_scrub)
        for stream_id, damage in stream_files.found_damaged:
            self._note(stream_id, damage)

    def report(self, stream_id: int, damage: DamagedBatch, then: Then | None = None) -> None:
        """Have a damaged batch mended. `then` hears True when it is worth to look again, False when
        nobody could help for now.
        """
        place = self._note(stream_id, damage)
        self._wake()
        if then is None:
            return
        if place is None or (place.failures and place.again_at > upstream.now()):
            then(False)
        else:
            place.waiting.append(then)

    def _note(self, stream_id: int, damage: DamagedBatch) -> Place | None:
        place = self._places.get((stream_id, damage.offset))
        if place is None and len(self._places) < PLACES_MAX:
            place = Place(stream_id, damage)
            self._places[place.key] = place
            logger.warning("damaged", extra=place.facts())
        return place

    def is_damaged(self, stream_id: int, offset: int) -> bool:
        return (stream_id, offset) in self._places

    @property
    def count(self) -> int:
        """How many places wait to be mended."""
        return len(self._places)

    @property
    def unmended_count(self) -> int:
        """How many of them nobody could help with so far."""
        return sum(place.failures > 0 for place in self._places.values())

    def copies(self, stream_id: int, offset: int) -> dict[str, str]:
        """What was found of the other nodes' copies of a damaged batch, by node."""
        place = self._places.get((stream_id, offset))
        return place.copies if place is not None else {}

    def places(self, count_max: int) -> list[DamagedPlace]:
        """The first of them."""
        names = {stream.id: stream.name for stream in self._machine.streams.values()}
        return [
            DamagedPlace(
                names.get(place.stream_id),
                place.damage.base_offset,
                place.damage.position,
                place.damage.offset,
                place.damage.reason,
                place.copies,
            )
            for place in list(self._places.values())[:count_max]
        ]

    def poll(self) -> None:
        """Called now and then."""
        now = upstream.now()
        self._scrub.poll(now)
        if self._current is None:
            due = (place for place in self._places.values() if place.again_at <= now)
            place = next(due, None)
            if place is not None:
                self._take_up(place)
        elif self._asked is not None and now - self._asked_at > ANSWER_S:
            self._ask_next()

    # ---- this node's damage

    def _take_up(self, place: Place) -> None:
        self._peers = self._core.connected_members()
        others = [member.id for member in self._core.members.newest.members]
        node_id = self._core.members.node_id
        place.copies = {each: AWAY for each in sorted(others) if each != node_id}
        if not self._peers and len(self._core.members.newest.members) > 1:
            # A start, or a cut: whoever waits goes on waiting.
            place.again_at = upstream.now() + AGAIN_S
            return
        self._current = place
        job = partial(self._stream_files.generation_at, *place.key)
        self._jobs.run(Lane.STREAMS, job, partial(self._looked, place))

    def _looked(self, place: Place, done: Future[int | None]) -> None:
        if done.result() == place.generation:
            self._ask_next()
        else:
            self._end(place, "the damaged segment is gone")

    def _ask_next(self) -> None:
        place = self._current
        assert place is not None
        self._asked = self._peers.pop(0) if self._peers else None
        if self._asked is None:
            self._put_off(place)
            return
        self._request += 1
        self._asked_at = upstream.now()
        request = RepairRead(self._request, *place.key, COPY_BYTES, place.generation)
        self._post(self._asked, request)

    def on_data(self, peer: str, message: RepairData) -> None:
        """A copy arrived, or a refusal."""
        if peer != self._asked or message.request != self._request:
            return
        self._asked = None
        place = self._current
        assert place is not None
        if message.data is None:
            place.copies[peer] = DAMAGED
            self._ask_next()
            return
        job = partial(self._mend, place, message.data)
        self._jobs.run(Lane.STREAMS, job, partial(self._mended, place, peer))

    def _mend(self, place: Place, data: bytes) -> Mended:
        files, (stream_id, offset) = self._stream_files, place.key
        if files.generation_at(stream_id, offset) != place.generation:
            return Mended(end_offset=offset)
        try:
            behind, written = files.mend(stream_id, offset, data)
        except DamagedBatch as damage:
            return Mended(damage=damage)
        except BadCopy as error:
            return Mended(refused=str(error))
        try:
            files.verify(stream_id, behind, COPY_BYTES)
        except DamagedBatch as damage:
            return Mended(written, behind.offset, damage)
        return Mended(written, behind.offset)

    def _mended(self, place: Place, peer: str, done: Future[Mended]) -> None:
        written, end_offset, damage, refused = done.result()
        place.mended_bytes += written
        self._measures.mended_bytes += written
        if refused is not None:
            logger.warning("a bad copy", extra={**place.facts(), "peer": peer, "refused": refused})
            place.copies[peer] = UNFIT
            self._ask_next()
            return
        if end_offset is None:
            self._put_off(place)
        elif damage is not None and damage.offset == end_offset:
            self._go_on(place, damage)
            return
        else:
            self._end(place, "mended")
        if damage is not None:
            self.report(place.stream_id, damage)

    def _go_on(self, place: Place, damage: DamagedBatch) -> None:
        """The batch behind the mended ones is damaged too: the same place, a little further."""
        self._current = None
        del self._places[place.key]
        self._answer(place, True)
        place.damage = damage
        self._places.setdefault(place.key, place)

    def _end(self, place: Place, event: str) -> None:
        logger.info(event, extra={**place.facts(), "bytes": place.mended_bytes})
        self._current = None
        del self._places[place.key]
        self._answer(place, True)

    def _put_off(self, place: Place) -> None:
        """Nobody can help now, or something before it must be mended first."""
        self._current = None
        pause_s = min(AGAIN_S * 2**place.failures, AGAIN_S_MAX)
        place.failures = min(place.failures + 1, 10)
        place.again_at = upstream.now() + pause_s
        if place.failures == 1:
            facts = {**place.facts(), "again_in_s": pause_s, "copies": place.copies}
            logger.warning("not mended yet", extra=facts)
        self._answer(place, False)

    def _answer(self, place: Place, is_mended: bool) -> None:
        waiting, place.waiting = place.waiting, []
        for then in waiting:
            then(is_mended)

    # ---- another node's damage

    def on_read(self, peer: str, request: RepairRead) -> None:
        """Send what another node lacks, if it is sound here."""
        job = partial(self._copy, request)
        self._jobs.run(Lane.STREAMS, job, partial(self._copied, peer, request))

    def _copy(self, request: RepairRead) -> bytes | DamagedBatch | None:
        bytes_max = min(request.bytes_max, COPY_BYTES_MAX)
        try:
            return self._stream_files.copy(
                request.stream_id, request.offset, bytes_max, request.generation
            )
        except DamagedBatch as damage:
            return damage

    def _copied(
        self, peer: str, request: RepairRead, done: Future[bytes | DamagedBatch | None]
    ) -> None:
        data = done.result()
        if isinstance(data, DamagedBatch):
            self.report(request.stream_id, data)
            data = None
        self._post(peer, RepairData(request.request, data))
