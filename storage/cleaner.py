"""Decides what compaction takes away, and which segments it makes one of.

1. *Scan* what is new since the last time: where is the newest record of each key?
2. *Judge* the segments from the first on: which records have a newer one? Segments that will fit
   into one are put together to a run, with the mask of what stays.
3. For each run somebody makes the new segment (`Compaction`) by that mask; there is nothing left to
   decide then.

Runs come in the order of the log, so a tombstone goes in a run behind those that held older records
of its key, or in the same one. Not before the next time, though: see `Cleaner`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .batch import Batch
from .compacting import Compaction, Run, swap
from .compaction import MASK_RECORDS_MAX
from .errors import StorageError
from .filesystem import Buffer
from .index import RELATIVE_OFFSET_MAX
from .newest import NewestOffsets
from .sealed import SealedSegment
from .verify import Cursor, read_verified

if TYPE_CHECKING:
    from .log import Log

RUN_SEGMENTS_MAX = 1_000
_PIECE_BYTES = 256 * 1024


class Judged(NamedTuple):
    """One segment, and what is to become of it."""

    segment: SealedSegment
    mask: bytes
    size_bytes: int
    """About what is left of it."""

    @property
    def loses(self) -> bool:
        return 0 in self.mask


class Group(NamedTuple):
    """Segments that become one."""

    segments: list[SealedSegment]
    mask: bytes

    @property
    def run(self) -> Run:
        return Run.of(self.segments)


class Cleaner:
    """One pass over a log, in steps."""

    def __init__(
        self,
        log: Log,
        *,
        cleaned_until: int,
        end_offset: int,
        tombstones_below: int,
        keys_max: int,
        segment_bytes_max: int,
    ) -> None:
        """Every key is there once below `cleaned_until`; nothing at or behind `end_offset` takes
        part.

        Tombstones below `tombstones_below`, which is not above `cleaned_until`, go: an earlier
        pass, which ended, has removed what they delete.
        """
        assert tombstones_below <= cleaned_until
        self.below = end_offset
        """Where the pass ends; lower, once it turned out that it cannot go so far."""
        self._log = log
        self._tombstones_below = tombstones_below
        self._segment_bytes_max = segment_bytes_max
        self._newest = NewestOffsets(cleaned_until, keys_max)
        self._cursor = Cursor(max(cleaned_until, log.first_offset), swaps=log.swaps)
        self._judging: SealedSegment | None = None
        self._mask = bytearray()
        self._size = 0
        self._judged_until = 0
        self._open: list[Judged] = []

    def scan(self, bytes_max: int) -> int | None:
        """Take in the next batches and return their bytes; None once that is done.

        Raises DamagedBatch, OffsetOutOfRange.
        """
        if self._cursor.offset >= self.below:
            return None
        self._cursor, batches = read_verified(self._log, self._cursor, bytes_max, end=self.below)
        for batch in batches:
            if not self._newest.add(batch):
                assert self._newest.stopped_at is not None
                self.below = self._newest.stopped_at
                break
        return sum(batch.size for batch in batches)

    def judge(self, bytes_max: int) -> tuple[int, Group | None] | None:
        """Judge the next batches, after the scan; return their bytes, and a group when there is
        one to be made a segment of before the next step; None at the end.

        What is trimmed away meanwhile it passes over. Raises DamagedBatch.
        """
        if self._judging is None and not self._begin():
            group = self._close()
            return (0, group) if group is not None else None
        segment = self._judging
        assert segment is not None
        end_offset = segment.next_offset
        if segment.base_offset < self._log.first_offset:
            self._open.clear()
            self._judging, self._judged_until = None, end_offset
            return 0, None
        self._cursor, batches = read_verified(self._log, self._cursor, bytes_max, end=end_offset)
        for batch in batches:
            mask = self._newest.mask(batch, self._tombstones_below)
            self._mask += mask
            self._size += batch.size * mask.count(1) // max(1, batch.count)
        size = sum(batch.size for batch in batches)
        if len(self._mask) > MASK_RECORDS_MAX:
            # No pass gets beyond a segment of so many records.
            self.below = min(self.below, segment.base_offset)
            self._judging = None
            return size, None
        if self._cursor.offset < end_offset:
            return size, None
        judged = Judged(segment, bytes(self._mask), self._size)
        self._judging, self._judged_until = None, end_offset
        return size, self._add(judged)

    def _begin(self) -> bool:
        """Turn to the next segment, if there is one."""
        for segment in self._log.sealed_segments():
            if segment.base_offset >= max(self._judged_until, self._log.first_offset):
                if segment.base_offset >= self.below:
                    return False
                self._judging, self._mask, self._size = segment, bytearray(), 0
                self._cursor = Cursor(segment.base_offset, swaps=self._log.swaps)
                return True
        return False

    def _add(self, judged: Judged) -> Group | None:
        """Put one more segment to those that become one; or return these, if it does not fit."""
        is_fine = not judged.loses and judged.size_bytes > self._segment_bytes_max // 2
        group = None
        if is_fine or not self._fits(judged):
            group = self._close()
        if not is_fine:
            self._open.append(judged)
        return group

    def _fits(self, judged: Judged) -> bool:
        together = [*self._open, judged]
        first, last = together[0].segment, judged.segment
        return (
            sum(each.size_bytes for each in together) <= self._segment_bytes_max
            and sum(len(each.mask) for each in together) <= MASK_RECORDS_MAX
            and len(together) <= RUN_SEGMENTS_MAX
            and last.next_offset - first.base_offset <= RELATIVE_OFFSET_MAX
            and (len(together) == 1 or self._open[-1].segment.next_offset == last.base_offset)
        )

    def _close(self) -> Group | None:
        """Return the segments put together, if it is worth to make one of them."""
        together, self._open = self._open, []
        sizes = [each.size_bytes for each in together]
        # A large one is not written again for each small one that comes behind it.
        merges = len(sizes) > 1 and 2 * max(sizes) <= sum(sizes)
        if not merges and not any(each.loses for each in together):
            return None
        mask = b"".join(each.mask for each in together)
        return Group([each.segment for each in together], mask)


class MaskReader:
    """Hands a mask out batch by batch."""

    def __init__(self, mask: bytes) -> None:
        self._mask = mask
        self._position = 0

    def __call__(self, batch: Batch) -> Buffer:
        """Raises WrongMask if there are more records than the mask knows."""
        position = self._position
        self._position += batch.count
        mask = self._mask[position : self._position]
        if len(mask) < batch.count:
            raise WrongMask("there are more records than the mask knows")
        return mask

    @property
    def is_used_up(self) -> bool:
        return self._position == len(self._mask)


class WrongMask(StorageError):
    """A mask was made for other batches."""


def compact_log(log: Log, cleaned_until: int, tombstones_below: int, keys_max: int) -> int:
    """Do a whole pass; see `Log.compact`."""
    sealed = log.sealed_segments()
    if not sealed:
        return cleaned_until
    cleaner = Cleaner(
        log,
        cleaned_until=cleaned_until,
        end_offset=max(cleaned_until, sealed[-1].next_offset),
        tombstones_below=tombstones_below,
        keys_max=keys_max,
        segment_bytes_max=log.segment_bytes_max,
    )
    while cleaner.scan(_PIECE_BYTES) is not None:
        pass
    while (step := cleaner.judge(_PIECE_BYTES)) is not None:
        _, group = step
        if group is not None:
            _make(log, group)
    return max(cleaned_until, cleaner.below)


def _make(log: Log, group: Group) -> None:
    compaction, mask = Compaction(log, group.run), MaskReader(group.mask)
    try:
        while compaction.made is None:
            compaction.step(_PIECE_BYTES, mask)
    except BaseException:
        compaction.abandon()
        raise
    swap(log, group.run, compaction.made)
