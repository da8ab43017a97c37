"""Where the segments of a stream begin and end: part of the replicated state.

Apply decides which batch begins a segment, from the batches' sizes and timestamps and the stream's
settings; the files follow. So every replica cuts its files at the same batches, counts the same
bytes, and knows what a trim frees without a look at the disk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from ..storage.batch import Batch
from ..storage.index import POSITION_MAX, RELATIVE_OFFSET_MAX
from ..storage.names import SegmentName
from .commands import CompactedRun


class SegmentRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The batches of `[base_offset, end_offset)`; timestamps are those of the appends, in ms."""

    base_offset: int
    end_offset: int
    size_bytes: int
    first_timestamp: int
    last_timestamp: int
    generation: int = 0
    """Above 0: compaction made it of others, and the rest is to be known of it."""
    records: int = 0
    digest: bytes = b""
    """Of its last batch."""
    bridge: bytes = b""
    """What the batch behind it carries as its chain."""

    @property
    def name(self) -> SegmentName:
        return SegmentName(self.base_offset, self.generation)

    @property
    def count(self) -> int:
        """Records in it."""
        return self.records if self.generation else self.end_offset - self.base_offset


class Segments:
    """Oldest first. All but the newest are sealed; the newest is never dropped."""

    def __init__(self, rows: Iterable[SegmentRow] = ()) -> None:
        self._rows = deque(rows)
        self.size_bytes = sum(row.size_bytes for row in self._rows)
        self.swaps = 0
        """How often compaction put a segment in the place of others, since this node started."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def count(self) -> int:
        """Records in all of them."""
        return sum(row.count for row in self._rows)

    def rows(self) -> list[SegmentRow]:
        return list(self._rows)

    def sealed(self) -> Iterator[SegmentRow]:
        return islice(self._rows, max(0, len(self._rows) - 1))

    def sealed_from(self, offset: int, *, is_down: bool) -> Iterator[SegmentRow]:
        """The sealed segments from the one that holds `offset` on, upwards or downwards."""
        rows = list(self.sealed())
        place = bisect_right(rows, offset, key=_base_offset) - 1
        if place < 0 or rows[place].end_offset <= offset:
            return iter(())
        return iter(rows[place::-1] if is_down else rows[place:])

    def base_of(self, offset: int) -> int:
        """Base offset of the segment that holds `offset`, or would if it was there; 0 if none."""
        place = bisect_right(self._rows, offset, key=_base_offset) - 1
        return self._rows[place].base_offset if place >= 0 else 0

    def takes(
        self, batch: Batch, *, bytes_max: int, age_ms_max: int, log_start_offset: int
    ) -> bool:
        """Does `batch` go into the newest segment? Otherwise it begins the next one.

        A segment with nothing readable in it takes nothing more, so that it can be dropped.
        `age_ms_max` counts from the segment's first batch; negative is no limit.
        """
        if not self._rows:
            return False
        newest = self._rows[-1]
        age_ms = batch.timestamp - newest.first_timestamp
        return (
            newest.size_bytes + batch.size <= min(bytes_max, POSITION_MAX)
            and (age_ms < age_ms_max or age_ms_max < 0)
            and newest.end_offset > log_start_offset
            and batch.base_offset - newest.base_offset <= RELATIVE_OFFSET_MAX
        )

    def add(self, batch: Batch, *, begins_segment: bool) -> None:
        self.size_bytes += batch.size
        base_offset, size, first_timestamp = batch.base_offset, batch.size, batch.timestamp
        if not begins_segment:
            newest = self._rows.pop()
            base_offset, first_timestamp = newest.base_offset, newest.first_timestamp
            size += newest.size_bytes
        self._rows.append(
            SegmentRow(base_offset, batch.next_offset, size, first_timestamp, batch.timestamp)
        )

    def row_at(self, offset: int) -> SegmentRow | None:
        """The segment that holds `offset`, if one does."""
        return next((row for row in self._rows if row.base_offset <= offset < row.end_offset), None)

    def replace(self, run: CompactedRun) -> bool:
        """Put the segment that compaction makes of some in their place, if they are all there."""
        rows = list(self._rows)
        first = next((n for n, row in enumerate(rows) if row.name == run.inputs[0]), len(rows))
        replaced = rows[first : first + len(run.inputs)]
        # The newest is never compacted: what is appended goes on there.
        if first + len(replaced) >= len(rows) or replaced[-1].end_offset != run.end_offset:
            return False
        if [row.name for row in replaced] != run.inputs:
            return False
        rows[first : first + len(replaced)] = [
            SegmentRow(
                replaced[0].base_offset,
                run.end_offset,
                run.size_bytes,
                replaced[0].first_timestamp,
                replaced[-1].last_timestamp,
                run.generation,
                run.records,
                run.digest,
                run.bridge,
            )
        ]
        self.size_bytes += run.size_bytes - sum(row.size_bytes for row in replaced)
        self._rows = deque(rows)
        self.swaps += 1
        return True

    def drop_below(self, offset: int) -> bool:
        """Forget the sealed segments that end at or below `offset`; were there any?"""
        count = len(self._rows)
        while len(self._rows) > 1 and self._rows[0].end_offset <= offset:
            self.size_bytes -= self._rows.popleft().size_bytes
        return len(self._rows) < count


def _base_offset(row: SegmentRow) -> int:
    return row.base_offset
