"""A disk that can lose power, tear writes, fail and run full: a `storage.filesystem.FileSystem`.

- What was written is read back at once, and survives the end of the process that wrote it.
- A power loss keeps what was synced. Of what was written since it keeps a first part, torn at any
  byte, or any of the 4 KiB pages. Of the names created, renamed and removed in a folder since that
  was synced it keeps none, all, the first ones, or any of them.
- `stop_after` stops the process between two changes, or in the middle of a write.
- `fail_after` makes one change fail: EIO, after which the bytes of a failed fsync may be gone while
  they can still be read (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX
  ATC 2020), or ENOSPC.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from ...storage.errors import FolderLocked
from ...storage.filesystem import Buffer, File, Lock
from .inodes import FileNode, FolderNode

FREE_BYTES = 1 << 40


class Stopped(BaseException):
    """The process ended in the middle of what it was doing to the disk."""


class SimDisk:
    """One machine's disk. Only one process uses it at a time."""

    def __init__(self, rng: Random) -> None:
        self.is_usable = False
        """Set while a job or a recovery runs: the event loop must never touch the disk."""
        self.changes = 0
        """Changes made so far: writes, syncs, names."""
        self.failures: list[OSError] = []
        """Errors injected into the process that runs now."""
        self.stop_after: int | None = None
        self.fail_after: int | None = None
        self.failure_errno = errno.EIO
        self.loses_on_failure = False
        self.is_full = False
        self._rng = rng
        self._root = FolderNode()
        self._locked: set[str] = set()

    # ---- what happens to it

    def end_process(self) -> None:
        """The process that used the disk is gone; its locks are free, its writes stay."""
        self._locked.clear()
        self.failures.clear()
        self.stop_after = self.fail_after = None

    def lose_power(self) -> None:
        self.end_process()
        self._root = self._root.after_power_loss(self._rng)

    def synced_only(self, *, without: str) -> SimDisk:
        """Return a disk with what is certain to survive a power loss now, and nothing else.

        Files in folders of the name `without` are left out, to save time.
        """
        disk = SimDisk(Random(0))
        disk._root = self._root.synced_only(without)
        disk.is_usable = True
        return disk

    def changing(self, path: str, *, takes_space: bool = False) -> None:
        """Called before each change; raises what the scenario wants to go wrong here."""
        self.touching()
        self.changes += 1
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise Stopped
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fail_after = None
                raise self._failure(self.failure_errno, path)
        if takes_space and self.is_full:
            raise self._failure(errno.ENOSPC, path)

    def touching(self) -> None:
        assert self.is_usable, "the event loop waits for the disk"

    def _failure(self, number: int, path: str) -> OSError:
        failure = OSError(number, os.strerror(number), path)
        self.failures.append(failure)
        return failure

    def cut_short(self, size: int) -> int:
        """Return how many of `size` bytes a write that did not return has written."""
        return self._rng.choice((0, size, self._rng.randint(0, size)))

    # ---- FileSystem

    def open(self, path: str, *, create: bool = False) -> File:
        self.touching()
        folder, name = self._folder_of(path)
        found = folder.names.get(name)
        if create:
            if found is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            self.changing(path, takes_space=True)
            found = FileNode()
            folder.change({name: found})
        if not isinstance(found, FileNode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return SimFile(self, path, found)

    def exists(self, path: str) -> bool:
        self.touching()
        return self._find(path) is not None

    def listdir(self, path: str) -> list[str]:
        self.touching()
        return sorted(self._folder(path).names)

    def make_folder(self, path: str) -> None:
        self.touching()
        folder = self._root
        for name in _parts(path):
            found = folder.names.get(name)
            if found is None:
                self.changing(path)
                found = FolderNode()
                folder.change({name: found})
            assert isinstance(found, FolderNode)
            folder = found

    def rename(self, source: str, target: str) -> None:
        folder, name = self._folder_of(source)
        target_folder, target_name = self._folder_of(target)
        assert folder is target_folder, "nothing is moved between folders"
        self.changing(target)
        folder.change({target_name: self._existing(source), name: None})

    def remove(self, path: str) -> None:
        folder, name = self._folder_of(path)
        self._existing(path)
        self.changing(path)
        folder.change({name: None})

    def remove_folder(self, path: str) -> None:
        found = self._folder(path)
        for name, node in list(found.names.items()):
            if isinstance(node, FolderNode):
                self.remove_folder(f"{path}/{name}")
            else:
                self.remove(f"{path}/{name}")
        folder, name = self._folder_of(path)
        self.changing(path)
        folder.change({name: None})

    def sync_folder(self, path: str) -> None:
        folder = self._folder(path)
        self.changing(path)
        folder.sync()

    def lock(self, path: str) -> Lock:
        self.touching()
        if path in self._locked:
            raise FolderLocked(path)
        if self._find(path) is None:
            self.open(path, create=True).close()
        self._locked.add(path)
        return SimLock(self._locked, path)

    def free_bytes(self, path: str) -> int:
        return 0 if self.is_full else FREE_BYTES

    # ---- what bits rot in

    def find_file(self, path: str) -> FileNode | None:
        found = self._find(path)
        return found if isinstance(found, FileNode) else None

    def files_below(self, path: str) -> list[tuple[str, FileNode]]:
        """All files in a folder and its folders, in order."""
        found = self._find(path)
        if isinstance(found, FileNode):
            return [(path, found)]
        names = sorted(found.names) if found is not None else []
        return [each for name in names for each in self.files_below(f"{path}/{name}")]

    # ---- paths

    def _find(self, path: str) -> FileNode | FolderNode | None:
        node: FileNode | FolderNode | None = self._root
        for name in _parts(path):
            if not isinstance(node, FolderNode):
                return None
            node = node.names.get(name)
        return node

    def _existing(self, path: str) -> FileNode | FolderNode:
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _folder(self, path: str) -> FolderNode:
        found = self._existing(path)
        if not isinstance(found, FolderNode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return found

    def _folder_of(self, path: str) -> tuple[FolderNode, str]:
        head, _, name = path.rpartition("/")
        return self._folder(head), name


class SimFile:
    """An open file."""

    def __init__(self, disk: SimDisk, path: str, node: FileNode) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._is_closed = False

    def size(self) -> int:
        self._check()
        return self._node.size

    def read_at(self, position: int, length: int) -> bytes:
        self._check()
        return self._node.read(position, length)

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        self._check()
        data = b"".join(buffers)
        try:
            self._disk.changing(self._path, takes_space=True)
        except BaseException:
            self._node.write(position, data[: self._disk.cut_short(len(data))])
            raise
        self._node.write(position, data)

    def truncate(self, size: int) -> None:
        self._check()
        self._disk.changing(self._path)
        self._node.truncate(size)

    def sync(self) -> None:
        self._check()
        try:
            self._disk.changing(self._path)
        except OSError:
            if self._disk.loses_on_failure:
                self._node.lose_unsynced()
            raise
        self._node.sync()

    def map(self, length: int) -> memoryview:
        self._check()
        return self._node.map(length)

    def close(self) -> None:
        self._is_closed = True

    def _check(self) -> None:
        self._disk.touching()
        assert not self._is_closed, f"{self._path} is closed"


class SimLock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def close(self) -> None:
        self._held.discard(self._path)


@lru_cache(maxsize=4096)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)
