"""The operating system's files for who only looks: no call changes a byte or a name on disk."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from typing import NoReturn

from .filesystem import File, FileSystem, Lock, OsFile, OsFileSystem, take_lock

_BLOCK_BYTES = 4096


class ReadOnlyFile(OsFile):
    """A file of which the disk may have lost blocks."""

    def read_at(self, position: int, length: int) -> bytes:
        """Return bytes; those that the disk cannot read any more count as zeros, so that who looks
        goes on behind them. The checksum says what they hit.
        """
        try:
            return super().read_at(position, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        return b"".join(self._readable(position, min(position + length, self.size())))

    def _readable(self, position: int, end: int) -> Iterator[bytes]:
        while position < end:
            length = min(end, position - position % _BLOCK_BYTES + _BLOCK_BYTES) - position
            try:
                yield super().read_at(position, length)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                yield bytes(length)
            position += length


class ReadOnlyFileSystem(OsFileSystem):
    """A `FileSystem` that raises OSError (EROFS) for whatever would change something.

    What would change an open file the kernel refuses, because it is opened for reading.
    """

    def open(self, path: str, *, create: bool = False) -> File:
        if create:
            _refuse(path)
        return ReadOnlyFile(os.open(path, os.O_RDONLY))

    def make_folder(self, path: str) -> None:
        _refuse(path)

    def rename(self, source: str, target: str) -> None:
        _refuse(source)

    def remove(self, path: str) -> None:
        _refuse(path)

    def remove_folder(self, path: str) -> None:
        _refuse(path)

    def sync_folder(self, path: str) -> None:
        _refuse(path)

    def lock(self, path: str) -> Lock:
        """Share the lock with others that only look, if its file is there; raise FolderLocked if a
        writer holds it. No writer gets it as long as this one is held.
        """
        return take_lock(path, os.O_RDONLY, fcntl.LOCK_SH)


def _refuse(path: str) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


READ_ONLY_FILES: FileSystem = ReadOnlyFileSystem()
