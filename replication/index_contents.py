"""What one index holds on this node, and what is to be done next for it.

`plan` is asked on the loop; the rest says where it runs. Nothing here is replicated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from ..storage.batch import Batch
from ..storage.errors import CorruptBatch
from ..storage.index_values import Source, encode, source_of
from ..storage.record import StoredRecord
from ..storage.segment_filter import SegmentFilter
from ..storage.value_index import ValueIndex, Witness, entry
from .index_files import IndexFiles, Place
from .indexes import IndexDefinition
from .stream import Stream

logger = logging.getLogger(__name__)

ENTRIES_MAX: Final = 32_000
"""So many wait in memory for one transaction."""
COMMIT_S: Final = 1.0
"""An index that has caught up is written this often: each time is an fsync."""
FAR_RECORDS: Final = 200_000
"""Further behind than this, nothing is synced until it has caught up."""
NEAR_RECORDS: Final = 20_000
PRUNE_VISITS: Final = 2_000
PRUNE_RECORDS_MIN: Final = 10_000
_SLICE_RECORDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Read:
    """Give `Content.digest` the batches from `offset` on, up to `end`."""

    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Do:
    """Run `job` on the index lane, then `done` on the loop."""

    job: Callable[[], object]
    done: Callable[[object], None]


Plan: TypeAlias = Read | Do | None


class Content(Protocol):
    stream: Stream
    place: Place

    def plan(self, now: float) -> Plan:
        """What to do next, on the loop; None if nothing is due."""

    def digest(self, batches: Sequence[Batch], read: Read) -> object:
        """Take in what was read, on the index lane."""

    def digested(self, result: object, read: Read, now: float) -> None:
        """Hear what `digest` returned, on the loop."""


class TreeContent:
    """A btree index."""

    def __init__(
        self, files: IndexFiles, stream: Stream, name: str, definition: IndexDefinition
    ) -> None:
        self.stream = stream
        self.name = name
        self.definition = definition
        self.place: Place = (stream.id, definition.id)
        self.source = find_source(definition.on)
        self.tree: ValueIndex | None = None
        """Open, and known to be of this stream's records."""
        self.through = 0
        """Everything below is in the tree."""
        self.reached = 0
        """Everything below is in the tree or in `_entries`."""
        self.is_ready = False
        self.records = 0
        """Put in since the node started."""
        self.is_hurried = False
        """Somebody waits for what is not in the tree yet."""
        self._files = files
        self._opened: ValueIndex | None = None
        self._entries: list[bytes] = []
        """Changed on the index lane only."""
        self._count = 0
        self._witness: Witness | None = None
        self._pending_since: float | None = None
        self._pruned_below = 0
        self._prune_at: bytes | None = None
        self._prune_below = 0

    def plan(self, now: float) -> Plan:
        stream = self.stream
        start, end = stream.log_start_offset, stream.next_offset
        if self._opened is None:
            return Do(
                lambda: self._files.open_tree(self.place, lambda at: end - at > FAR_RECORDS),
                self._was_opened,
            )
        if self.tree is None:
            if self.through > end:
                return self._begin_anew("it covers more than the stream has")
            if self.through <= start or self._witness is None:
                self.tree = self._opened
            else:
                return Read(self.through - 1, self.through)
        if self.reached < start:
            self.reached = start
        self._note_pending(now)
        if self._is_commit_due(now, end):
            return self._commit(end)
        if self.tree.is_backfilling and end - self.through < NEAR_RECORDS:
            return Do(self.tree.end_backfill, _nothing)
        if self.reached < end:
            return Read(self.reached, end)
        self._has_caught_up(end)
        return self._plan_pruning(start, end)

    def _has_caught_up(self, end: int) -> None:
        """What the stream had when this was planned, up to `end`, is in the tree."""
        if self.through >= end:
            self.is_ready = True
            self.is_hurried = False

    def _note_pending(self, now: float) -> None:
        if self.reached > self.through and self._pending_since is None:
            self._pending_since = now

    def _is_commit_due(self, now: float, end: int) -> bool:
        if self._pending_since is None:
            return False
        if self._count >= ENTRIES_MAX:
            return True
        is_late = now - self._pending_since >= COMMIT_S
        is_wanted = is_late or self.is_hurried or not self.is_ready
        return (self.reached >= end and is_wanted) or (is_late and self.is_ready)

    def _was_opened(self, opened: object) -> None:
        assert isinstance(opened, ValueIndex)
        self._opened = opened
        self.through = self.reached = opened.through
        self._witness = opened.witness

    def _begin_anew(self, reason: str) -> Do:
        def remove() -> None:
            self._files.remove(self.place)

        logger.warning("an index is not usable, builds it anew", extra={"reason": reason})
        self.forget()
        return Do(remove, _nothing)

    def forget(self) -> None:
        """The files are to go, or gone: begin at the stream's start."""
        self._opened = self.tree = None
        self.through = self.reached = self._count = 0
        self._entries = []
        self._witness = self._pending_since = self._prune_at = None
        self.is_ready = False

    # ---- taking in

    def digest(self, batches: Sequence[Batch], read: Read) -> object:
        if self.tree is None:
            return batches[0] if batches else None
        entries, began = self._entries, len(self._entries)
        reached = read.offset
        for batch in batches:
            for record in records_of(batch, read):
                value = self.source.find(record)
                if value is not None:
                    entries.append(entry(encode(value), record.offset))
            reached = batch.next_offset
            time.sleep(0)  # whoever waits for Python's lock gets it
        witness = (batches[-1].term, batches[-1].index) if batches else None
        return reached, len(entries) - began, witness

    def digested(self, result: object, read: Read, now: float) -> None:
        if self.tree is None:
            self._check_witness(result, read.offset)
            return
        assert isinstance(result, tuple)
        self.reached, count, self._witness = result
        self._count += count

    def _check_witness(self, batch: object, offset: int) -> None:
        """The newest record covered has to be the one that was covered: a cluster that lost what
        was committed has others at the same offsets.
        """
        is_there = isinstance(batch, Batch) and batch.base_offset <= offset < batch.next_offset
        if is_there and isinstance(batch, Batch) and (batch.term, batch.index) != self._witness:
            self.through = self.stream.next_offset + 1
        else:
            self.tree = self._opened

    def _commit(self, end: int) -> Do:
        tree, entries, count = self.tree, self._entries, self._count
        assert tree is not None
        reached, witness = self.reached, self._witness

        def job() -> None:
            entries.sort()
            tree.add(entries, reached, witness)
            entries.clear()

        def done(_: object) -> None:
            self.through = reached
            self.records += count
            self._count -= count
            self._pending_since = None
            self._has_caught_up(end)

        return Do(job, done)

    # ---- pruning

    def _plan_pruning(self, start: int, end: int) -> Plan:
        """Look at all entries, a few at a time, once enough of them are of trimmed records."""
        tree = self.tree
        assert tree is not None
        if self._prune_at is None:
            if start - self._pruned_below < max(PRUNE_RECORDS_MIN, (end - start) // 4):
                return None
            self._prune_at, self._prune_below = b"", start
        at, below = self._prune_at, self._prune_below

        def done(next_at: object) -> None:
            assert next_at is None or isinstance(next_at, bytes)
            self._prune_at = next_at
            if next_at is None:
                self._pruned_below = below

        return Do(lambda: tree.prune(at, below, PRUNE_VISITS), done)


class FilterContent:
    """A filter for each sealed segment: a bloom index, or what reads with `key=` use."""

    def __init__(self, files: IndexFiles, stream: Stream, place: Place, on: str) -> None:
        self.stream = stream
        self.place = place
        self.source = find_source(on)
        self.ends: dict[int, int] | None = None
        """End offset of each segment that has a filter, by base offset; None: not looked yet."""
        self.records = 0
        self._files = files
        self._building: SegmentFilter | None = None
        self._reached = 0
        self._seen: tuple[int, int, int] | None = None

    @property
    def is_ready(self) -> bool:
        return self.ends is not None and self._missing() is None

    def missing_records(self) -> int:
        ends = self.ends or {}
        return sum(
            row.end_offset - max(row.base_offset, self.stream.log_start_offset)
            for row in self.stream.segments.sealed()
            if ends.get(row.base_offset) != row.end_offset
        )

    def plan(self, now: float) -> Plan:
        if self.ends is None:
            return Do(lambda: self._files.kept_filters(self.place), self._was_listed)
        if self._building is None:
            missing = self._missing()
            if missing is None:
                return None
            self._building = SegmentFilter(*missing)
            self._reached = missing[0]
        self._reached = max(self._reached, self.stream.log_start_offset)
        building = self._building
        if self._reached < building.end_offset:
            return Read(self._reached, building.end_offset)
        return self._keep(building)

    def _was_listed(self, ends: object) -> None:
        assert isinstance(ends, dict)
        self.ends = ends

    def _missing(self) -> tuple[int, int] | None:
        """The first sealed segment without a filter, looked for when there are others than at the
        last look.
        """
        segments = self.stream.segments
        rows = segments.sealed()
        seen = (len(segments), segments.swaps, self.stream.log_start_offset)
        if seen == self._seen or self.ends is None:
            return None
        for row in rows:
            if self.ends.get(row.base_offset) != row.end_offset:
                return row.base_offset, row.end_offset
        self._seen = seen
        return None

    def _keep(self, building: SegmentFilter) -> Do:
        assert self.ends is not None
        known = {row.base_offset for row in self.stream.segments.sealed()}
        gone = [(base, self.ends.pop(base)) for base in list(self.ends) if base not in known]

        def job() -> None:
            for base_offset, end_offset in gone:
                self._files.remove_filter(self.place, base_offset, end_offset)
            self._files.keep_filter(self.place, building)

        def done(_: object) -> None:
            assert self.ends is not None
            self._building = None
            self.ends[building.base_offset] = building.end_offset

        return Do(job, done)

    def forget(self, base_offset: int | None = None) -> None:
        """A file is not what was written: build it again."""
        self._seen = None
        if base_offset is not None and self.ends is not None:
            self.ends.pop(base_offset, None)

    def digest(self, batches: Sequence[Batch], read: Read) -> object:
        building, count = self._building, 0
        assert building is not None
        reached = read.offset
        for batch in batches:
            records = records_of(batch, read)
            values = [value for value in map(self.source.find, records) if value is not None]
            building.add(map(encode, values))
            count += len(values)
            reached = batch.next_offset
            time.sleep(0)
        return reached, count

    def digested(self, result: object, read: Read, now: float) -> None:
        assert isinstance(result, tuple)
        self._reached = result[0]
        self.records += result[1]


def find_source(on: str) -> Source:
    """The source, or one that finds nothing for what only another version can have let pass."""
    try:
        return source_of(on)
    except ValueError:
        return source_of("key")._replace(find=lambda record: None)


def records_of(batch: Batch, read: Read) -> list[StoredRecord]:
    try:
        records = batch.records()
    except CorruptBatch:
        return []  # its bytes are those that were appended: nobody can read records from them
    if batch.base_offset >= read.offset and batch.next_offset <= read.end:
        return records
    return [record for record in records if read.offset <= record.offset < read.end]


def _nothing(_: object) -> None:
    """There is nothing to be done after it."""
