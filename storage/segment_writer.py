"""Writes a segment that nobody knows yet."""

from __future__ import annotations

from .batch import Batch
from .filesystem import FileSystem
from .index import START, IndexEntry, OffsetIndex
from .names import NEW_SUFFIX, SegmentName, index_path, store_path
from .store import Store

_SYNC_BYTES = 8 * 1024 * 1024
"""Synced in pieces: at the end there is little to wait for."""


class SegmentWriter:
    """A new segment, of batches that follow each other, under a name that is nobody's yet."""

    def __init__(self, files: FileSystem, folder: str, name: SegmentName, interval: int) -> None:
        """What an earlier attempt left is overwritten."""
        self._files = files
        self._base_offset = name.base_offset
        self._paths = [path(folder, *name) + NEW_SUFFIX for path in (store_path, index_path)]
        self._interval_bytes = interval
        self._entries: list[IndexEntry] = []
        self._unsynced_bytes = 0
        self._remove()
        self._store = Store.create(files, self._paths[0])

    @property
    def size(self) -> int:
        return self._store.size

    def append(self, batches: list[Batch]) -> None:
        position = self._store.size
        for batch in batches:
            before = self._entries[-1] if self._entries else START
            if position - before.position >= self._interval_bytes:
                entry = IndexEntry(batch.base_offset - self._base_offset, position)
                self._entries.append(entry)
            position += batch.size
        self._unsynced_bytes += position - self._store.size
        self._store.append([batch.data for batch in batches])
        if self._unsynced_bytes >= _SYNC_BYTES:
            self._store.sync()
            self._unsynced_bytes = 0

    def finish(self) -> None:
        """Make it durable, but for its name."""
        self._store.sync()
        self._store.close()
        index = OffsetIndex(self._files, self._paths[1], self._interval_bytes)
        try:
            index.replace(self._entries)
            index.seal()
        finally:
            index.close()

    def abandon(self) -> None:
        self._store.close()
        self._remove()

    def _remove(self) -> None:
        for path in self._paths:
            if self._files.exists(path):
                self._files.remove(path)
