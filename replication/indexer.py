"""Builds this node's indexes behind what is applied: one step at a time, on a lane of its own.

    loop    plan ──> Recent, or a job on the streams lane: a piece of the log
    index   digest: decode, take values        … or a transaction of what was taken, or a filter
    loop    digested, and the next plan

No append waits for it. A step is a few milliseconds, and lets go of Python's lock about every one;
while the node writes, it rests after each. A full disk stops it until there is room; appends go on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from ..storage.batch import Batch
from ..storage.errors import DamagedBatch, OffsetOutOfRange
from ..storage.value_index import BadIndex, NoRoom
from . import upstream
from .filter_content import FilterContent
from .index_contents import Content, Read, TreeContent
from .index_files import KEY, IndexFiles, Place
from .indexes import BLOOM, IndexDefinition, IndexInfo
from .jobs import Jobs
from .machine import StateMachine
from .measures import Measures
from .runtime import Lane
from .scrub import Damages
from .stream import Stream
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

PIECE_BYTES: Final = 256 << 10
LOOK_S: Final = 0.01
"""Time between two looks for work, after one that found none."""
LOOKS_MAX: Final = 64
"""Indexes asked at a time whether there is work."""
AGAIN_S: Final = 5.0
"""After a full disk, or damage in the log."""
REST_BUILDING: Final = 3.0
"""While the node writes, a step of an index that has not caught up yet is followed by so many times
its own length without one …"""
REST_LIVE: Final = 1.0
"""… and of one that has: it must not fall behind."""


class Indexer:
    def __init__(
        self,
        *,
        jobs: Jobs,
        machine: StateMachine,
        stream_files: StreamFiles,
        files: IndexFiles,
        measures: Measures,
        damages: Damages,
        is_short: Callable[[], bool],
    ) -> None:
        self.files = files
        self._jobs = jobs
        self._machine = machine
        self._stream_files = stream_files
        self._measures = measures
        self._damages = damages
        self._is_short = is_short
        self._contents: dict[Place, TreeContent | FilterContent] = {}
        self._order: deque[Content] = deque()
        self._seen = -1
        self._is_busy = False
        self._look_at = 0.0
        self._flushed_bytes = 0
        self._complained: set[Place] = set()

    # ---- what is asked about them, on the loop

    def tree(self, stream: Stream, index_id: int) -> TreeContent | None:
        found = self._contents.get((stream.id, index_id))
        return found if isinstance(found, TreeContent) else None

    def filters(self, stream: Stream, what: int | str) -> FilterContent | None:
        found = self._contents.get((stream.id, what))
        return found if isinstance(found, FilterContent) else None

    def key_filters(self, stream: Stream) -> FilterContent:
        """Those of a stream whose records somebody reads by key: from now on it has some."""
        place: Place = (stream.id, KEY)
        found = self.filters(stream, KEY)
        if found is None or found.stream is not stream:
            found = FilterContent(self.files, stream, place, "key")
            self._add(found)
        return found

    def hurry(self) -> None:
        """Somebody waits: look for work at once."""
        self._look_at = 0.0

    def describe(self, stream_name: str, name: str, definition: IndexDefinition) -> IndexInfo:
        """The index as this node has it; of one that is gone meanwhile, what it was."""
        stream = self._machine.streams.get(stream_name)
        if stream is None or stream.indexes.get(name) != definition:
            return IndexInfo(name, definition.kind, definition.on, "building", 0.0, 0, 0)
        start, end = stream.log_start_offset, stream.next_offset
        content = self._contents.get((stream.id, definition.id))
        is_ready, records, lag = False, 0, end - start
        if isinstance(content, TreeContent):
            through = content.through if content.tree is not None else start
            is_ready, records, lag = content.is_ready, content.records, end - max(start, through)
        elif content is not None:
            is_ready, records, lag = content.is_ready, content.records, content.missing_records()
        coverage = 1.0 if end == start else max(0.0, 1 - lag / (end - start))
        state = "ready" if is_ready else "building"
        return IndexInfo(
            name, definition.kind, definition.on, state, coverage, records, max(0, lag)
        )

    # ---- the work

    def poll(self, now: float, *, is_synced: bool) -> None:
        """Called now and then. `is_synced`: this node has applied what was committed before it
        started, so that what it does not know is not there any more.
        """
        if self._is_busy or now < self._look_at or not is_synced:
            return
        if self._seen != self._machine.index_changes:
            self._reconcile()
            if self._is_busy:
                return
        if not self._order:
            return
        if not self._is_short():
            for _ in range(min(len(self._order), LOOKS_MAX)):
                content = self._order[0]
                self._order.rotate(-1)
                if self._begin(content, now):
                    return
        self._look_at = now + LOOK_S

    def _reconcile(self) -> None:
        """Begin with indexes that are new, and give up those that are gone."""
        is_first, self._seen = self._seen < 0, self._machine.index_changes
        wanted: dict[Place, tuple[Stream, str]] = {
            (stream.id, index.id): (stream, name)
            for stream in self._machine.streams.values()
            for name, index in stream.indexes.items()
        }
        streams = {stream.id: stream for stream in self._machine.streams.values()}
        gone = [
            place
            for place in self._contents
            if place not in wanted and not (place[1] == KEY and place[0] in streams)
        ]
        for place in gone:
            del self._contents[place]
            self._jobs.run(Lane.INDEX, partial(self.files.remove, place))
        for place, (stream, name) in wanted.items():
            if place not in self._contents:
                definition = stream.indexes[name]
                if definition.kind == BLOOM:
                    self._add(FilterContent(self.files, stream, place, definition.on))
                else:
                    self._add(TreeContent(self.files, stream, name, definition))
        self._order = deque(self._contents.values())
        if is_first:
            self._is_busy = True
            kept = [*wanted, *((stream_id, KEY) for stream_id in streams)]
            self._jobs.run(Lane.INDEX, partial(self.files.clean, kept), self._cleaned)

    def _cleaned(self, done: Future[list[int]]) -> None:
        self._is_busy = False
        keyed = set(done.result())
        for stream in self._machine.streams.values():
            if stream.id in keyed:
                self.key_filters(stream)

    def _add(self, content: TreeContent | FilterContent) -> None:
        self._contents[content.place] = content
        self._order = deque(self._contents.values())
        self._look_at = 0.0

    def _begin(self, content: Content, now: float) -> bool:
        plan = content.plan(now)
        if plan is None:
            return False
        self._is_busy = True
        if isinstance(plan, Read):
            self._read(content, plan)
        else:
            self._run(content, plan.job, plan.done)
        return True

    def _read(self, content: Content, read: Read) -> None:
        stream_id, bytes_max = content.stream.id, PIECE_BYTES
        recent = self._machine.recent.read(stream_id, read.offset, bytes_max)
        if recent is not None:
            self._digest(content, read, recent)
            return

        def job() -> list[Batch] | DamagedBatch:
            try:
                return self._stream_files.read(stream_id, read.offset, bytes_max)
            except OffsetOutOfRange:
                return []  # trimmed meanwhile
            except DamagedBatch as damage:
                return damage

        self._jobs.run(Lane.STREAMS, job, partial(self._was_read, content, read))

    def _was_read(
        self, content: Content, read: Read, done: Future[list[Batch] | DamagedBatch]
    ) -> None:
        found = done.result()
        if isinstance(found, DamagedBatch):
            self._damages.report(content.stream.id, found)
            self._rest(AGAIN_S)
        elif found:
            self._digest(content, read, found)
        else:
            self._rest(LOOK_S)

    def _digest(self, content: Content, read: Read, batches: Sequence[Batch]) -> None:
        def digested(result: object) -> None:
            content.digested(result, read, upstream.now())

        self._run(content, partial(content.digest, batches, read), digested)

    def _run(
        self, content: Content, job: Callable[[], object], then: Callable[[object], None]
    ) -> None:
        def timed() -> tuple[object, float]:
            began = upstream.now()
            try:
                result = job()
            except (BadIndex, NoRoom, OSError) as error:
                result = error
            return result, upstream.now() - began

        self._jobs.run(Lane.INDEX, timed, partial(self._ran, content, then))

    def _ran(
        self,
        content: Content,
        then: Callable[[object], None],
        done: Future[tuple[object, float]],
    ) -> None:
        result, took_s = done.result()
        if self._contents.get(content.place) is not content:
            self._rest(0.0)
        elif isinstance(result, BadIndex):
            logger.warning("an index is not usable", extra={"reason": str(result)})
            assert isinstance(content, TreeContent)
            content.forget()
            place = content.place
            self._run(content, lambda: self.files.remove(place), lambda _: None)
        elif isinstance(result, NoRoom | OSError):
            self._complain(content, result)
            self._rest(AGAIN_S)
        else:
            self._complained.discard(content.place)
            then(result)
            is_writing = self._measures.flushed_bytes != self._flushed_bytes
            self._flushed_bytes = self._measures.flushed_bytes
            is_live = isinstance(content, TreeContent) and content.is_ready
            rest = REST_LIVE if is_live else REST_BUILDING
            self._rest(took_s * rest if is_writing else 0.0)

    def _complain(self, content: Content, error: Exception) -> None:
        if content.place not in self._complained:
            self._complained.add(content.place)
            logger.warning(
                "an index cannot be written", extra={"reason": str(error), "again_in_s": AGAIN_S}
            )

    def _rest(self, pause_s: float) -> None:
        self._is_busy = False
        if pause_s:
            self._look_at = upstream.now() + pause_s
            self._jobs.call_at(self._look_at, lambda: None)
