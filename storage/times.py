"""The first record at or after a time, in one segment: by its time index, which is loaded, or built
by a walk over the segment, when somebody asks.
"""

from __future__ import annotations

import errno

from .batch import Batch
from .errors import DamagedBatch
from .filesystem import FileSystem
from .guide import Guide
from .index import START
from .time_index import TimeIndex
from .walk import Walk


class Times:
    """Of one segment, that grows or is sealed."""

    def __init__(
        self, files: FileSystem, path: str, guide: Guide, base_offset: int, interval_bytes: int
    ) -> None:
        self._files = files
        self._path = path
        self._guide = guide
        self._base_offset = base_offset
        self._interval_bytes = interval_bytes
        self._index: TimeIndex | None = None
        self._grows = False

    def begin(self) -> None:
        """The segment is empty: note everything that is added from now on."""
        self._index = TimeIndex(self._interval_bytes)
        self._grows = True

    def add(self, position: int, batch: Batch) -> None:
        """Take note of a batch behind all others."""
        self._grows = True
        if self._index is not None and self._index.is_mapped:
            self._index.close()
            self._index = None
        if self._index is not None:
            self._index.add(batch.base_offset - self._base_offset, position, batch.max_timestamp)

    def seal(self, digest: bytes) -> None:
        """Write the index, if it is known: nothing will be added."""
        self._grows = False
        if self._index is not None and not self._index.is_mapped:
            self._save(self._index, digest)

    def find(self, timestamp: int, digest: bytes) -> int | None:
        """Return the base offset of the first batch with a record at or after `timestamp`, None if
        there is none. Raises DamagedBatch.
        """
        try:
            return self._find(timestamp, self._load(digest))
        except DamagedBatch:
            # The hint may be the only thing that is wrong.
            return self._find(timestamp, self._build(digest))

    def max_timestamp(self, digest: bytes) -> int:
        """Return the largest timestamp of the segment; raises DamagedBatch."""
        return self._load(digest).max_timestamp

    def _find(self, timestamp: int, index: TimeIndex) -> int | None:
        if index.max_timestamp < timestamp:
            return None
        walk = self._guide.walk(index.find(timestamp), lambda walk: _is_reached(walk, timestamp))
        return walk.last.base_offset if walk.last is not None else None

    def _load(self, digest: bytes) -> TimeIndex:
        if self._index is None:
            self._index = TimeIndex.open(self._files, self._path, digest)
        return self._index if self._index is not None else self._build(digest)

    def _build(self, digest: bytes) -> TimeIndex:
        index = TimeIndex(self._interval_bytes)

        def note(walk: Walk) -> bool:
            if walk.last is not None:
                relative_offset = walk.last.base_offset - self._base_offset
                position = walk.position - walk.last.size
                index.add(relative_offset, position, walk.last.max_timestamp)
            return False

        self._guide.walk(START, note)
        self.close()
        self._index = index
        if not self._grows:
            self._save(index, digest)
        return index

    def _save(self, index: TimeIndex, digest: bytes) -> None:
        if not len(index):
            return  # to walk is as good
        try:
            index.save(self._files, self._path, digest)
        except OSError as error:
            # It can be built again, and a full disk is no reason to stop.
            if error.errno != errno.ENOSPC:
                raise

    def close(self) -> None:
        index, self._index = self._index, None
        if index is not None:
            index.close()


def _is_reached(walk: Walk, timestamp: int) -> bool:
    return walk.last is not None and walk.last.max_timestamp >= timestamp
