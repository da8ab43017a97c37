"""The sealed segments of a log: known by three numbers each, opened when they are read.

Opening a log of thousands of segments touches none of them, and a few stay open: those read last
(`idle_segments.py`), and those that hold bytes nobody has synced yet. A segment is synced through
the file that wrote it: an error of writing back is told to whoever had the file open, and perhaps
to nobody later.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import NamedTuple

from .filesystem import FileSystem
from .idle_segments import IdleSegments
from .log_state import Compacted
from .names import SegmentName
from .segment import Segment


class SealedSegment(NamedTuple):
    base_offset: int
    next_offset: int
    size: int
    """Bytes of its store."""
    generation: int = 0
    seam: Compacted | None = None
    """None if it was not compacted, or nobody kept what there is to know."""

    @property
    def name(self) -> SegmentName:
        return SegmentName(self.base_offset, self.generation)


class SealedSegments:
    """Ascending, one behind the other."""

    def __init__(
        self, files: FileSystem, folder: str, interval_bytes: int, idle: IdleSegments
    ) -> None:
        self.size_bytes = 0
        self._files = files
        self._folder = folder
        self._interval_bytes = interval_bytes
        self._known: list[SealedSegment] = []
        self._unsynced: OrderedDict[int, Segment] = OrderedDict()
        self._idle = idle
        self._newest: dict[int, int] = {}
        """Largest timestamps, by base offset, of those that somebody asked for."""

    def __len__(self) -> int:
        return len(self._known)

    def extents(self) -> list[tuple[int, int]]:
        """Return (base offset, bytes) of each."""
        return [(segment.base_offset, segment.size) for segment in self._known]

    def known(self) -> list[SealedSegment]:
        return self._known.copy()

    def note(self, segment: SealedSegment) -> None:
        """Take note of a durable segment found at open; ascending calls only."""
        self._known.append(segment)
        self.size_bytes += segment.size

    def seal(self, segment: Segment) -> None:
        """Take over the segment that was written last."""
        segment.seal()
        self.note(SealedSegment(segment.base_offset, segment.next_offset, segment.size))
        self._unsynced[segment.base_offset] = segment

    def drop_below(self, offset: int, *, keeps_last: bool) -> bool:
        """Forget the segments that end at or below `offset`, synced or not; were there any?

        The newest stays if `keeps_last`. The files are left alone.
        """
        hi = len(self._known) - keeps_last
        count = bisect_right(
            self._known, offset, hi=max(0, hi), key=lambda known: known.next_offset
        )
        self._forget(0, count)
        return count > 0

    def replace(self, new: SealedSegment) -> list[SealedSegment]:
        """Put a durable segment in the place of those of the same offsets, and return them."""
        first = bisect_left(self._known, new.base_offset, key=lambda known: known.base_offset)
        last = bisect_left(self._known, new.next_offset, key=lambda known: known.next_offset)
        replaced = self._known[first : last + 1]
        assert replaced[0].base_offset == new.base_offset
        assert replaced[-1].next_offset == new.next_offset
        self._forget(first, last + 1)
        self._known.insert(first, new)
        self.size_bytes += new.size
        return replaced

    def _forget(self, first: int, end: int) -> None:
        for known in self._known[first:end]:
            self.size_bytes -= known.size
            self._newest.pop(known.base_offset, None)
            segment = self._unsynced.pop(known.base_offset, None)
            if segment is not None:
                segment.close()
            self._idle.close(self._folder, known.base_offset)
        del self._known[first:end]

    def holding(self, offset: int) -> SealedSegment | None:
        """Return the segment of these that holds `offset`, if one does."""
        number = bisect_right(self._known, offset, key=lambda known: known.base_offset) - 1
        if number < 0 or offset >= self._known[number].next_offset:
            return None
        return self._known[number]

    def ending_at(self, offset: int) -> SealedSegment | None:
        """Return the segment that ends there, if there is one."""
        number = bisect_left(self._known, offset, key=lambda known: known.next_offset)
        if number < len(self._known) and self._known[number].next_offset == offset:
            return self._known[number]
        return None

    def find(self, offset: int) -> Segment | None:
        """Return the segment that holds `offset`, or None if none here does."""
        known = self.holding(offset)
        return self._opened(known) if known is not None else None

    def find_timestamp(self, timestamp: int, start: int) -> int | None:
        """Return the base offset of the first batch with a record at or after `timestamp` (ms),
        from the segment that holds `start` on; None if there is none. Raises DamagedBatch.
        """
        first = bisect_right(self._known, start, key=lambda known: known.next_offset)
        for known in self._known[first:]:
            if self._newest.get(known.base_offset, timestamp) < timestamp:
                continue
            segment = self._opened(known)
            self._newest[known.base_offset] = segment.max_timestamp()
            found = segment.find_timestamp(timestamp)
            if found is not None:
                return found
        return None

    def last(self) -> Segment | None:
        """Return the newest, if there is one."""
        return self._opened(self._known[-1]) if self._known else None

    def sync(self, *, unsynced_max: int = 0) -> None:
        """Make durable what was not, oldest first, until only `unsynced_max` are not."""
        while len(self._unsynced) > unsynced_max:
            base_offset, segment = next(iter(self._unsynced.items()))
            segment.sync()
            del self._unsynced[base_offset]
            self._idle.add(self._folder, segment)

    def close(self) -> None:
        segments = list(self._unsynced.values())
        self._unsynced.clear()
        self._idle.close_all(self._folder)
        for segment in segments:
            segment.close()

    def _opened(self, known: SealedSegment) -> Segment:
        base_offset = known.base_offset
        segment = self._unsynced.get(base_offset) or self._idle.get(self._folder, base_offset)
        if segment is None:
            segment = Segment.open(
                self._files,
                self._folder,
                known.name,
                self._interval_bytes,
                next_offset=known.next_offset,
                tolerates_damage=True,
            )
            self._idle.add(self._folder, segment)
        return segment
