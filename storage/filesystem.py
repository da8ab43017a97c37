"""The seam between the storage layer and the disk.

All of storage reaches the disk through a `FileSystem`, so that a simulated one can lose power, tear
writes and run full. `OS_FILES` is the real one. Files and folders are `str` paths joined with "/".

- Reads and writes name their position; a `File` has no cursor.
- Bytes are not durable before `File.sync`, and a name that was created, renamed or removed is not
  before `FileSystem.sync_folder`.
- What the disk refuses is an `OSError`, never a short count.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from .errors import FolderLocked

Buffer: TypeAlias = bytes | bytearray | memoryview

_COPY_BYTES = 1024 * 1024
_BUFFERS_MAX = os.sysconf("SC_IOV_MAX")
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750


class File(Protocol):
    """An open file; closing it twice is allowed, using it afterwards is not."""

    def size(self) -> int: ...

    def read_at(self, position: int, length: int) -> bytes:
        """Return `length` bytes from `position`, fewer only where the file ends."""
        ...

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        """Write all of `buffers` one behind the other; after an OSError any part may be written."""
        ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Make every byte written so far durable, those written through a map too (fdatasync)."""
        ...

    def map(self, length: int) -> memoryview:
        """Return the first `length` bytes as shared, writable memory; the file must be that long.

        Release the view before truncating the file below `length`: the kernel answers a touch
        beyond the end with SIGBUS. For the same reason the bytes must have been written, not merely
        truncated to: filling a hole through a map on a full disk is SIGBUS too, where a write is
        an OSError.
        """
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """Held until closed, or until the process ends."""

    def close(self) -> None: ...


class FileSystem(Protocol):
    """A disk, or what passes for one."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing.

        Raises FileExistsError if it is there with `create`, FileNotFoundError if not without.
        """
        ...

    def exists(self, path: str) -> bool: ...

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; one that is there is left alone."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Put `source` in the place of `target`, atomically."""
        ...

    def remove(self, path: str) -> None: ...

    def remove_folder(self, path: str) -> None:
        """Remove a folder with everything in it."""
        ...

    def sync_folder(self, path: str) -> None:
        """Make the names in a folder durable: what was created, renamed and removed there."""
        ...

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock `path` (a file, created if missing) or raise FolderLocked."""
        ...

    def free_bytes(self, path: str) -> int:
        """Return how many bytes an unprivileged process can still write to the disk of `path`."""
        ...


class OsFile:
    """A `File` of the operating system."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read_at(self, position: int, length: int) -> bytes:
        data = os.pread(self._fd, length, position)
        if len(data) == length or not data:
            return data
        parts = [data]
        missing = length - len(data)
        while missing and data:
            data = os.pread(self._fd, missing, position + length - missing)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        for group in _groups(buffers):
            waiting: list[Buffer] = group
            while waiting:
                written = os.pwritev(self._fd, waiting, position)
                if written <= 0:
                    raise OSError(errno.EIO, "the disk took none of the bytes")
                position += written
                waiting = _rest(waiting, written)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def map(self, length: int) -> memoryview:
        return memoryview(mmap.mmap(self._fd, length))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _groups(buffers: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """Yield the buffers that hold anything, at most as many at a time as one system call takes."""
    filled = [buffer for buffer in buffers if len(buffer)]
    for start in range(0, len(filled), _BUFFERS_MAX):
        yield filled[start : start + _BUFFERS_MAX]


def _rest(buffers: list[Buffer], written: int) -> list[Buffer]:
    """Return what is left of `buffers` behind their first `written` bytes."""
    for number, buffer in enumerate(buffers):
        size = len(buffer)
        if written < size:
            return [memoryview(buffer)[written:], *buffers[number + 1 :]]
        written -= size
    return []


def write_again(file: File, start: int, end: int) -> None:
    """Write the bytes in [start, end) once more; whoever calls syncs.

    For what an earlier process may have failed to sync. The kernel takes the pages of a failed
    fsync for clean: they can be read, but the next fsync succeeds without writing them (Rebello et
    al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
    """
    while start < end:
        data = file.read_at(start, min(end - start, _COPY_BYTES))
        file.write_at(start, [data])
        start += len(data)


def take_lock(path: str, flags: int, operation: int) -> Lock:
    """Open the file and flock it, without waiting. Raises FolderLocked, OSError."""
    fd = os.open(path, flags, _FILE_MODE)
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FolderLocked(path) from None
    except OSError:
        os.close(fd)
        raise
    return OsFile(fd)


class OsFileSystem:
    """The `FileSystem` of the operating system (Linux)."""

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        return OsFile(os.open(path, flags, _FILE_MODE))

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_folder(self, path: str) -> None:
        os.makedirs(path, _FOLDER_MODE, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_folder(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_folder(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> Lock:
        return take_lock(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)

    def free_bytes(self, path: str) -> int:
        disk = os.statvfs(path)
        return disk.f_bavail * disk.f_frsize


OS_FILES: FileSystem = OsFileSystem()
