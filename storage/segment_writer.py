"""Writes a segment that nobody knows yet."""

from __future__ import annotations

from .batch import Batch
from .filesystem import FileSystem
from .index import START, IndexEntry, OffsetIndex
from .names import NEW_SUFFIX, SegmentName, segment_paths
from .store import Store
from .time_index import TimeIndex

_SYNC_BYTES = 8 * 1024 * 1024
"""Synced in pieces: at the end there is little to wait for."""


class SegmentWriter:
    """A new segment, of batches that follow each other, under a name that is nobody's yet."""

    def __init__(self, files: FileSystem, folder: str, name: SegmentName, interval: int) -> None:
        """What an earlier attempt left is overwritten."""
        self._files = files
        self._base_offset = name.base_offset
        self._paths = [path + NEW_SUFFIX for path in segment_paths(folder, name)]
        self._interval_bytes = interval
        self._entries: list[IndexEntry] = []
        self._times = TimeIndex(interval)
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
            relative_offset = batch.base_offset - self._base_offset
            self._times.add(relative_offset, position, batch.max_timestamp)
            position += batch.size
        self._unsynced_bytes += position - self._store.size
        self._store.append([batch.data for batch in batches])
        if self._unsynced_bytes >= _SYNC_BYTES:
            self._store.sync()
            self._unsynced_bytes = 0

    def finish(self, digest: bytes) -> None:
        """Make it durable, but for its name; `digest` is that of its last batch."""
        self._store.sync()
        self._store.close()
        index = OffsetIndex(self._files, self._paths[1], self._interval_bytes)
        try:
            index.replace(self._entries)
            index.seal()
        finally:
            index.close()
        if len(self._times):
            self._times.save(self._files, self._paths[2], digest)

    def abandon(self) -> None:
        self._store.close()
        self._remove()

    def _remove(self) -> None:
        for path in self._paths:
            if self._files.exists(path):
                self._files.remove(path)
