"""What one index holds on this node, and what is to be done next for it.

`plan` is asked on the loop; the rest says where it runs. Nothing here is replicated.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeAlias

from ..storage.batch import Batch
from ..storage.errors import CorruptBatch
from ..storage.index_values import Source, source_of
from ..storage.memory import give_back
from ..storage.record import StoredRecord
from ..storage.tree_check import TreeCheck, TreeSum
from ..storage.value_index import ValueIndex, Witness
from .index_files import IndexFiles, Place
from .indexes import IndexDefinition
from .stream import Stream

logger = logging.getLogger(__name__)

PART_ENTRIES: Final = 16_000
"""In one transaction, which may hold a page for each."""
BUILDING_ENTRIES_MAX: Final = 300_000
"""So many, 20 MB, are sorted before they are written, until an index has caught up: keys come in no
order, and a page that is written for ten of them costs what it does for one."""
COMMIT_S: Final = 1.0
"""An index that has caught up is written this often: each time is an fsync."""
FAR_RECORDS: Final = 200_000
"""Further behind than this, nothing is synced until it has caught up."""
NEAR_RECORDS: Final = 20_000
PRUNE_VISITS: Final = 2_000
PRUNE_RECORDS_MIN: Final = 10_000
CHECK_VISITS: Final = 2_000
CHECK_STEP_S: Final = 0.1
"""Between two steps of the walk that looks for rot: ten million entries take eight minutes."""
CHECK_PAUSE_S: Final = 86_400.0
"""Between two walks; the first begins once the index has caught up."""
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
        self._runs: list[list[bytes]] = []
        """Entries, each list in order. Changed on the index lane only."""
        self._parts: Iterator[tuple[list[bytes], bool]] | None = None
        self._count = 0
        self._sum = TreeSum()
        """Of the entries that are not in the tree yet, or above its `through`."""
        self._witness: Witness | None = None
        self._pending_since: float | None = None
        self._pruned_below = 0
        self._prune_at: bytes | None = None
        self._prune_below = 0
        self._check: TreeCheck | None = None
        self._check_at = 0.0

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
            return Do(partial(_end_backfill, self.tree), _nothing)
        if self.reached < end:
            return Read(self.reached, end)
        self._has_caught_up(end)
        return self._plan_pruning(start, end) or self._plan_check(now)

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
        if self._parts is not None:
            return True
        if self._count >= (PART_ENTRIES if self.is_ready else BUILDING_ENTRIES_MAX):
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
        self._runs, self._parts, self._sum = [], None, TreeSum()
        self._witness = self._pending_since = self._prune_at = self._check = None
        self.is_ready = False

    # ---- taking in

    def digest(self, batches: Sequence[Batch], read: Read) -> object:
        if self.tree is None:
            return batches[0] if batches else None
        entries: list[bytes] = []
        reached = read.offset
        for batch in batches:
            entries += self.source.entries(records_of(batch, read))
            reached = batch.next_offset
            time.sleep(0)  # whoever waits for Python's lock gets it
        witness = (batches[-1].term, batches[-1].index) if batches else None
        entries.sort()
        self._runs.append(entries)
        self._sum = self._sum.plus(TreeSum.of(entries))
        return reached, len(entries), witness

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
        """Write the next part; the last one moves `through`."""
        tree, count = self.tree, self._count
        assert tree is not None
        reached, witness = self.reached, self._witness

        def job() -> bool:
            if self._parts is None:
                self._parts = in_parts(self._runs)
            part, is_last = next(self._parts)
            through, proof = (reached, witness) if is_last else (tree.through, tree.witness)
            try:
                tree.add(part, through, proof, self._sum if is_last else TreeSum())
            except BaseException:
                self._parts = None  # from the first one on again: twice is as good as once
                raise
            if is_last:
                self._runs, self._parts, self._sum = [], None, TreeSum()
                if tree.is_backfilling:
                    give_back()
            return is_last

        def done(is_last: object) -> None:
            if is_last:
                self.through = reached
                self.records += count
                self._count = 0
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
            self._check = None
        at, below = self._prune_at, self._prune_below

        def done(next_at: object) -> None:
            assert next_at is None or isinstance(next_at, bytes)
            self._prune_at = next_at
            if next_at is None:
                self._pruned_below = below

        return Do(lambda: tree.prune(at, below, PRUNE_VISITS), done)

    # ---- rot

    def _plan_check(self, now: float) -> Plan:
        """Walk over all entries, now and then: an entry that is not there any more would be missed
        by nobody. BadIndex has the tree built anew.
        """
        tree = self.tree
        assert tree is not None
        if now < self._check_at:
            return None
        self._check_at = now + CHECK_STEP_S

        def job() -> bool:
            if self._check is None:
                self._check = tree.begin_check()
            return tree.check(self._check, CHECK_VISITS)

        def done(is_whole: object) -> None:
            if is_whole:
                self._check = None
                self._check_at = now + CHECK_PAUSE_S

        return Do(job, done)


def in_parts(runs: Sequence[list[bytes]]) -> Iterator[tuple[list[bytes], bool]]:
    """Yield what is in the runs in order, in parts of about PART_ENTRIES, and whether it is the
    last. Nothing is sorted as a whole: that would hold Python's lock for long.
    """
    count = sum(map(len, runs))
    step = max(1, PART_ENTRIES // 16)
    sample = sorted(entry for run in runs for entry in run[::step])
    places = range(1, -(-count // PART_ENTRIES))
    bounds = [sample[place * len(sample) // (len(places) + 1)] for place in places]
    starts = [0] * len(runs)
    for bound in bounds:
        part: list[bytes] = []
        for number, run in enumerate(runs):
            end = bisect_left(run, bound, starts[number])
            part += run[starts[number] : end]
            starts[number] = end
        part.sort()
        yield part, False
    rest = [entry for start, run in zip(starts, runs, strict=True) for entry in run[start:]]
    rest.sort()
    yield rest, True


def find_source(on: str) -> Source:
    """The source, or one that finds nothing for what only another version can have let pass."""
    try:
        return source_of(on)
    except ValueError:
        return source_of("key")._replace(find=lambda record: None, entries=lambda records: [])


def records_of(batch: Batch, read: Read) -> list[StoredRecord]:
    try:
        records = batch.records()
    except CorruptBatch:
        return []  # its bytes are those that were appended: nobody can read records from them
    if batch.base_offset >= read.offset and batch.next_offset <= read.end:
        return records
    return [record for record in records if read.offset <= record.offset < read.end]


def _end_backfill(tree: ValueIndex) -> None:
    tree.end_backfill()
    # Entries and pages by the ten thousand: of what is free by now, a node that has built an index
    # of five million would keep 150 MB.
    give_back()


def _nothing(_: object) -> None:
    """There is nothing to be done after it."""
