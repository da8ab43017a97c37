"""The offset index of a segment: where in the store to begin looking for an offset.

A memory-mapped file of little-endian u64 entries, ascending:

    high 32 bits   base offset of a batch, less the segment's
    low 32 bits    the batch's position in the store

One entry per `interval_bytes` of store, none for the batch at position 0: so no entry is zero, and
zeros behind the last entry are room preallocated for more. The file appears with its first entry.

The index is derived. It is never synced before its segment is sealed, and an entry is a hint that
the reader checks: the batch at its position must begin at its offset. What is wrong at open
(`doubt`) or in use is built anew from the store.

The room is written as zeros, never left a hole: filling a hole through the map on a full disk would
kill the process (SIGBUS), while a write raises OSError.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from operator import lt
from typing import NamedTuple

from .filesystem import File, FileSystem

assert sys.byteorder == "little", "the index is used in place, as this machine's integers"

_ENTRY_SIZE = 8
_ROOM_BYTES_MIN = 4096
_LOW = 2**32 - 1
_FILE_BYTES_MAX = 64 * 1024 * 1024
"""More than any index needs that is looked at without a map."""

RELATIVE_OFFSET_MAX = _LOW
POSITION_MAX = _LOW


class IndexEntry(NamedTuple):
    relative_offset: int
    position: int


START = IndexEntry(0, 0)
"""What holds for every segment without an entry."""


class OffsetIndex:
    """A sparse map from relative offset to position."""

    def __init__(self, files: FileSystem, path: str, interval_bytes: int) -> None:
        """Begin an index that has no file yet."""
        self.path = path
        self.doubt: str | None = None
        """Why the entries found at open were dropped."""
        self._files = files
        self._interval_bytes = interval_bytes
        self._file: File | None = None
        self._map = memoryview(b"")
        self._entries = self._map.cast("Q")
        self._count = 0

    @classmethod
    def open(
        cls, files: FileSystem, path: str, interval_bytes: int, *, store_size: int
    ) -> OffsetIndex:
        """Load the entries below `store_size`; none, and a `doubt`, if the file makes no sense."""
        index = cls(files, path, interval_bytes)
        if files.exists(path):
            index._file = files.open(path)
            try:
                index.doubt = index._load()
                if index.doubt is not None:
                    index.clear()
                index._cut(store_size)
            except BaseException:
                index.close()
                raise
        return index

    def __len__(self) -> int:
        return self._count

    def entries(self) -> list[IndexEntry]:
        return [unpack_entry(entry) for entry in self._entries[: self._count].tolist()]

    def last(self) -> IndexEntry:
        """Return the newest entry, or START."""
        return unpack_entry(self._entries[self._count - 1]) if self._count else START

    def find(self, relative_offset: int) -> IndexEntry:
        """Return the newest entry at or below `relative_offset`, or START."""
        key = relative_offset << 32 | _LOW
        number = bisect_right(self._entries, key, 0, self._count)
        return unpack_entry(self._entries[number - 1]) if number else START

    def behind(self, entry: IndexEntry) -> IndexEntry | None:
        """Return the oldest entry behind `entry`, which may be START; None if that is the last."""
        number = bisect_right(self._entries, pack_entry(*entry), 0, self._count)
        return unpack_entry(self._entries[number]) if number < self._count else None

    def find_position(self, position: int) -> IndexEntry:
        """Return the newest entry at or below `position`, or START."""
        number = bisect_right(self._entries, position, 0, self._count, key=lambda each: each & _LOW)
        return unpack_entry(self._entries[number - 1]) if number else START

    def add(self, relative_offset: int, position: int) -> None:
        """Take note of a batch, if the last entry is an interval away; ascending calls only."""
        if position - self.last().position < self._interval_bytes:
            return
        if self._count == len(self._entries):
            self._grow()
        self._entries[self._count] = pack_entry(relative_offset, position)
        self._count += 1

    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """Take these entries in the place of all."""
        self.clear()
        for entry in entries:
            self.add(*entry)

    def clear(self) -> None:
        self._unmap()
        self._count = 0
        if self._file is not None:
            self._file.truncate(0)

    def seal(self) -> None:
        """Give back the room and make the file durable; nothing will be added."""
        if self._file is not None:
            self._trim()
            self._file.sync()

    def close(self) -> None:
        """Give back the room."""
        if self._file is None:
            return
        try:
            self._trim()
        finally:
            self._unmap()
            self._file.close()
            self._file = None

    def _load(self) -> str | None:
        """Map the file and count its entries; return why it cannot be right, if so."""
        assert self._file is not None
        size = self._file.size()
        if size % _ENTRY_SIZE:
            return f"{size} bytes are no whole number of entries"
        if size // _ENTRY_SIZE > 2 * POSITION_MAX // self._interval_bytes + _ROOM_BYTES_MIN:
            return f"{size} bytes are more than any store needs"
        self._remap(size)
        entries = self._entries.tolist()
        self._count = count_entries(entries)
        return doubt_about(entries)

    def _cut(self, position: int) -> None:
        while self._count and self.last().position >= position:
            self._count -= 1
            self._entries[self._count] = 0

    def _grow(self) -> None:
        if self._file is None:
            self._file = self._files.open(self.path, create=True)
        size = len(self._map)
        room = max(size, _ROOM_BYTES_MIN)
        self._file.write_at(size, [bytes(room)])
        self._remap(size + room)

    def _trim(self) -> None:
        """Cut the file to its entries."""
        assert self._file is not None
        size = self._count * _ENTRY_SIZE
        if len(self._map) > size:
            self._unmap()
            self._file.truncate(size)
            self._remap(size)

    def _remap(self, size: int) -> None:
        assert self._file is not None
        self._unmap()
        if size:
            self._map = self._file.map(size)
            self._entries = self._map.cast("Q")

    def _unmap(self) -> None:
        """Let go of the memory: a touch beyond the end of a file that was cut is SIGBUS."""
        self._entries.release()
        self._map.release()
        self._map = memoryview(b"")
        self._entries = self._map.cast("Q")


def count_entries(entries: list[int]) -> int:
    """Return how many there are before the room for more."""
    return entries.index(0) if 0 in entries else len(entries)


def doubt_about(entries: list[int]) -> str | None:
    """Return why these cannot be the entries of an index, if so."""
    count = count_entries(entries)
    if any(entries[count:]):
        return "an entry behind the end"
    # A segment may have half a million of them, and this is done whenever it is opened.
    halves = memoryview(array("Q", entries[:count])).cast("B").cast("I").tolist()
    positions, offsets = halves[::2], halves[1::2]
    if not all(_ascends(each) for each in (offsets, positions)):
        return "entries that do not ascend"
    return None


def _ascends(numbers: list[int]) -> bool:
    return all(map(lt, numbers, islice(numbers, 1, None)))


def read_entries(files: FileSystem, path: str) -> list[IndexEntry]:
    """Return the entries of an index file, without a map. Raises ValueError if it makes no sense,
    OSError.
    """
    file = files.open(path)
    try:
        size = file.size()
        if size % _ENTRY_SIZE or size > _FILE_BYTES_MAX:
            raise ValueError(f"an index is not of {size} bytes")
        entries = memoryview(file.read_at(0, size)).cast("Q").tolist()
    finally:
        file.close()
    doubt = doubt_about(entries)
    if doubt is not None:
        raise ValueError(doubt)
    return [unpack_entry(entry) for entry in entries[: count_entries(entries)]]


def pack_entry(relative_offset: int, position: int) -> int:
    return relative_offset << 32 | position


def unpack_entry(entry: int) -> IndexEntry:
    return IndexEntry(entry >> 32, entry & _LOW)
