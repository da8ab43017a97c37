"""The store of a segment: batches end to end in one file, nothing between or around them.

It grows at its end, is cut only by recovery, and written over only where it is damaged. Whoever
reads checks: a `Batch` that comes from here had a right checksum at that moment. Whether the
batches belong here (base offsets without a gap) is the segment's business.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from .batch import BATCH_HEADER_SIZE, Batch, batch_size, parse_batch
from .errors import CorruptBatch, IncompleteBatch
from .filesystem import Buffer, File, FileSystem, write_again

SYNC_BYTES = 4 * 1024 * 1024
"""So much is synced while it is appended: what waits for `sync` is written in one go, and whoever
syncs on that disk meanwhile, as a write-ahead log does, waits behind all of it."""
_BLOCK_BYTES = 4096


class Store:
    """One file of batches. `size` is how far it counts; bytes behind that are not looked at."""

    def __init__(
        self, path: str, file: File, size: int, *, is_dirty: bool, is_vouched: bool
    ) -> None:
        self.path = path
        self.size = size
        self._file = file
        self._is_dirty = is_dirty
        self._synced_size = size
        self._doubtful_size = 0 if is_vouched else size
        """So much from the beginning can be read, but perhaps an fsync of it failed."""
        self._is_vouched = is_vouched
        """All of it was written for sure, so what cannot be read is damage, and no torn tail."""

    @classmethod
    def create(cls, files: FileSystem, path: str) -> Store:
        return cls(path, files.open(path, create=True), 0, is_dirty=True, is_vouched=True)

    @classmethod
    def open(cls, files: FileSystem, path: str, *, is_durable: bool) -> Store:
        """Open a store as long as its file is.

        `is_durable` says that all of it was synced; if not, an earlier process may have left bytes
        that only the page cache holds, perhaps for clean: the first `sync` writes them again.
        """
        file = files.open(path)
        return cls(path, file, file.size(), is_dirty=not is_durable, is_vouched=is_durable)

    def append(self, buffers: Sequence[Buffer]) -> None:
        self._is_dirty = True
        self._file.write_at(self.size, buffers)
        self.size += sum(map(len, buffers))
        if self.size - self._synced_size >= SYNC_BYTES:
            self.sync()

    def overwrite(self, position: int, buffers: Sequence[Buffer]) -> None:
        """Write in place of bytes that cannot be read. If it fails, they still cannot be."""
        self._is_dirty = True
        self._file.write_at(position, buffers)

    def cut(self, size: int) -> None:
        """Drop what lies at and behind the position `size`."""
        self._is_dirty = True
        self._file.truncate(size)
        self.size = size
        self._synced_size = min(self._synced_size, size)

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes as they are, unchecked; fewer than `length` where the store ends.

        Blocks that the disk cannot read any more count as zeros: the checksum says what they hit.
        """
        length = max(0, min(length, self.size - position))
        try:
            return self._file.read_at(position, length)
        except OSError as error:
            if error.errno != errno.EIO or not self._is_vouched:
                raise
        return b"".join(self._readable(position, position + length))

    def _readable(self, position: int, end: int) -> Iterator[bytes]:
        while position < end:
            length = min(end, position - position % _BLOCK_BYTES + _BLOCK_BYTES) - position
            try:
                yield self._file.read_at(position, length)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                yield bytes(length)
            position += length

    def scan(self, position: int, chunk_bytes: int) -> Iterator[list[Batch]]:
        """Yield the batches from `position` to the end of the store, a list per read of the disk.

        A read takes `chunk_bytes` (a header at least) or, where that holds no whole batch, exactly
        the next batch. Raises CorruptBatch after everything in front of the bad batch was yielded.
        """
        chunk_bytes = max(chunk_bytes, BATCH_HEADER_SIZE)
        length = chunk_bytes
        while position < self.size:
            length = min(length, self.size - position)
            chunk = self.read_at(position, length)
            batches, end, error = parse_all(chunk)
            if batches:
                yield batches
            if len(chunk) < length:
                raise IncompleteBatch(self.path, position + len(chunk), "the file ends")
            is_at_end = position + length == self.size
            if error is not None and (is_at_end or not isinstance(error, IncompleteBatch)):
                raise type(error)(self.path, position + end, error.reason)
            length = chunk_bytes if batches else batch_size(chunk, 0)
            position += end

    def sync(self) -> None:
        """Make everything appended and cut so far durable."""
        if self._is_dirty:
            write_again(self._file, 0, min(self._doubtful_size, self.size))
            self._file.sync()
            self._doubtful_size = 0
            self._is_dirty = False
            self._synced_size = self.size

    def close(self) -> None:
        self._file.close()


def parse_all(chunk: bytes) -> tuple[list[Batch], int, CorruptBatch | None]:
    """Return the good batches at the front of `chunk`, where they end, and what is wrong there."""
    batches: list[Batch] = []
    position = 0
    view = memoryview(chunk)
    while position < len(chunk):
        try:
            batch = parse_batch(view, position)
        except CorruptBatch as error:
            return batches, position, error
        batches.append(batch)
        position += batch.size
    return batches, position, None
