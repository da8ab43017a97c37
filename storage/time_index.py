"""The time index of a segment: where in the store to begin looking for a timestamp.

An entry says: no batch before this one has a record as new as that. So the largest timestamp before
each entry ascends even where clients' own timestamps do not, and a bisection finds the last entry
behind which the first record at or after a time must lie.

Of a segment that grows, the entries are in memory; sealing writes them, little-endian:

    u32 crc   CRC-32C of all that follows
    u32 count
    16 bytes  digest of the segment's last batch: of another life of the segment it is another
    i64       largest timestamp of the whole segment
    i64 …     largest timestamp before each entry, ascending
    u64 …     the entries, as the offset index has them: base offset and position of a batch

The file is mapped and checked when it is opened. It is derived: without it, or with one that is not
right, the segment is walked when somebody asks for a time.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence

import crc32c

from .filesystem import FileSystem
from .index import START, IndexEntry, pack_entry, unpack_entry

_HEAD = struct.Struct("<II16sq")
_NO_TIME = -(2**63)


class TimeIndex:
    """Largest timestamps before the entries of one segment, in ms."""

    def __init__(self, interval_bytes: int) -> None:
        """Begin the index of an empty segment."""
        self.max_timestamp = _NO_TIME
        """Of the whole segment."""
        self._interval_bytes = interval_bytes
        self._before: Sequence[int] = array("q")
        self._entries: Sequence[int] = array("Q")
        self._map = memoryview(b"")

    @classmethod
    def open(cls, files: FileSystem, path: str, digest: bytes) -> TimeIndex | None:
        """Map what `save` wrote; None if it is not there, not right, or of another segment."""
        if not files.exists(path):
            return None
        file = files.open(path)
        try:
            size = file.size()
            if size < _HEAD.size:
                return None
            mapped = file.map(size)
        finally:
            file.close()
        crc, count, of_digest, newest = _HEAD.unpack_from(mapped)
        is_whole = size == _HEAD.size + 16 * count and crc == crc32c.crc32c(mapped[4:])
        if not is_whole or of_digest != digest:
            mapped.release()
            return None
        index = cls(0)
        index.max_timestamp = newest
        middle = _HEAD.size + 8 * count
        index._map = mapped
        index._before = mapped[_HEAD.size : middle].cast("q")
        index._entries = mapped[middle:].cast("Q")
        return index

    def __len__(self) -> int:
        return len(self._before)

    @property
    def is_mapped(self) -> bool:
        """It is of a file, and takes nothing more."""
        return len(self._map) > 0

    def add(self, relative_offset: int, position: int, max_timestamp: int) -> None:
        """Take note of a batch; in the order of their positions."""
        assert isinstance(self._before, array)
        assert isinstance(self._entries, array)
        last = unpack_entry(self._entries[-1]).position if self._entries else 0
        if position - last >= self._interval_bytes:
            self._before.append(self.max_timestamp)
            self._entries.append(pack_entry(relative_offset, position))
        self.max_timestamp = max(self.max_timestamp, max_timestamp)

    def find(self, timestamp: int) -> IndexEntry:
        """Return the last entry, or START, before which no record is at or after `timestamp`."""
        number = bisect_left(self._before, timestamp)
        return unpack_entry(self._entries[number - 1]) if number else START

    def save(self, files: FileSystem, path: str, digest: bytes) -> None:
        """Write it beside the sealed segment, in the place of another. It is not synced."""
        assert isinstance(self._before, array)
        assert isinstance(self._entries, array)
        rest = b"".join(
            [
                _HEAD.pack(0, len(self._before), digest, self.max_timestamp)[4:],
                self._before.tobytes(),
                self._entries.tobytes(),
            ]
        )
        if files.exists(path):
            files.remove(path)
        file = files.open(path, create=True)
        try:
            file.write_at(0, [crc32c.crc32c(rest).to_bytes(4, "little"), rest])
        finally:
            file.close()

    def close(self) -> None:
        """Let go of the map."""
        for view in (self._before, self._entries):
            if isinstance(view, memoryview):
                view.release()
        self._map.release()
