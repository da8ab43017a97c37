"""The newest entries of the log in memory, dense by index, with their sizes summed up."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from .wal_frame import Entry, frame_size


class EntryCache:
    """Entries `first` … `end - 1`. Sizes are those of frames, so that small entries count too."""

    def __init__(self, first: int) -> None:
        self.first = first
        """Index of the oldest entry held; the next index to come if none is held."""
        self._entries: list[Entry] = []
        self._ends = array("Q")
        self._start = 0
        self._end = 0

    @property
    def end(self) -> int:
        return self.first + len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self._end - self._start

    def append(self, entry: Entry) -> int:
        """Add the entry with index `end`; return its size."""
        size = frame_size(len(entry.payload))
        self._end += size
        self._entries.append(entry)
        self._ends.append(self._end)
        return size

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add many entries, the first one with index `end`."""
        for entry in entries:
            self.append(entry)

    def truncate(self, from_index: int) -> None:
        """Drop the entries from `from_index` on; if that lies below `first`, go on from there."""
        keep = from_index - self.first
        if keep <= 0:
            self.reset(from_index)
        else:
            del self._entries[keep:], self._ends[keep:]
            self._end = self._ends[-1]

    def reset(self, first: int) -> None:
        self.first = first
        self._entries.clear()
        self._ends = array("Q")
        self._start = self._end = 0

    def evict(self, bytes_max: int, below: int) -> None:
        """Drop the oldest entries, none with an index ≥ `below`, until `bytes_max` are left."""
        surplus = self.size_bytes - bytes_max
        if surplus <= 0:
            return
        count = bisect_left(self._ends, self._start + surplus) + 1
        count = min(count, below - self.first, len(self._entries))
        if count > 0:
            self._start = self._ends[count - 1]
            del self._entries[:count], self._ends[:count]
            self.first += count

    def read(self, start: int, bytes_max: int, end: int) -> list[Entry]:
        """Return entries from `start` on: at least one, no more than `bytes_max`, none ≥ `end`."""
        low = start - self.first
        stop = bisect_right(self._ends, self._end_of(low - 1) + bytes_max, low)
        return self._entries[low : min(max(stop, low + 1), end - self.first)]

    def bytes_between(self, low: int, high: int) -> int:
        """Return the size of the entries in (low, high]; `low` may be the one before the first."""
        return self._end_of(high - self.first) - self._end_of(low - self.first)

    def _end_of(self, place: int) -> int:
        return self._ends[place] if place >= 0 else self._start
