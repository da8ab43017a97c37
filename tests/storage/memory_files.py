"""A disk in memory that can lose power: it knows what was synced and what was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cute_logger.storage.errors import FolderLocked
from cute_logger.storage.filesystem import Buffer

Choose = Callable[[int, int], int]
"""Picks a number from a range, both ends included."""


class PowerLost(Exception):
    """The machine stopped; the step it was about to take has not happened."""


def keep_nothing(low: int, high: int) -> int:
    return low


def keep_all(low: int, high: int) -> int:
    return high


@dataclass(eq=False)
class _Node:
    """A file's bytes, whatever its names."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)
    """(position, bytes written), or (size, b"") for a truncation."""

    def apply(self, position: int, data: bytes) -> None:
        if data:
            self.data.extend(bytes(max(0, position - len(self.data))))
            self.data[position : position + len(data)] = data
        else:
            self.data[position:] = bytes(max(0, position - len(self.data)))

    def after_crash(self, choose: Choose) -> _Node:
        """Keep what is durable and any first part of the bytes written since, maybe zeroed."""
        node = _Node(bytearray(self.durable))
        left = choose(0, sum(len(data) for _, data in self.unsynced))
        for position, data in self.unsynced:
            kept = data[:left]
            if data and not kept:
                break
            if choose(0, 3) == 1:
                hole = choose(0, len(kept))
                kept = kept[:hole] + bytes(len(kept) - hole)
            node.apply(position, kept)
            left -= len(data)
        node.durable = bytes(node.data)
        return node


_Change = dict[str, _Node | None]
"""Names that come or go (None) at once."""


class MemoryFile:
    def __init__(self, disk: MemoryFiles, node: _Node) -> None:
        self._disk = disk
        self._node = node

    def size(self) -> int:
        return len(self._node.data)

    def read_at(self, position: int, length: int) -> bytes:
        return bytes(self._node.data[position : position + length])

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        self._disk.step()
        data = b"".join(buffers)
        self._node.unsynced.append((position, data))
        self._node.apply(position, data)

    def truncate(self, size: int) -> None:
        self._disk.step()
        self._node.unsynced.append((size, b""))
        self._node.apply(size, b"")

    def sync(self) -> None:
        self._disk.step()
        self._node.durable = bytes(self._node.data)
        self._node.unsynced.clear()

    def map(self, length: int) -> memoryview:
        raise NotImplementedError("nothing that needs a map is tested on this disk")

    def close(self) -> None:
        pass


class _Lock:
    def __init__(self, held: set[str], path: str) -> None:
        self._held = held
        self._path = path

    def close(self) -> None:
        self._held.discard(self._path)


class MemoryFiles:
    """Names change in order; a crash keeps those synced and any first part of the changes since."""

    def __init__(self) -> None:
        self.steps = 0
        """Changes made to the disk so far."""
        self.steps_max: int | None = None
        """The power fails before the step that would pass this."""
        self._names: dict[str, _Node] = {}
        self._durable_names: dict[str, _Node] = {}
        self._unsynced: list[_Change] = []
        self._folders: set[str] = set()
        self._locked: set[str] = set()

    def step(self) -> None:
        if self.steps_max is not None and self.steps >= self.steps_max:
            raise PowerLost
        self.steps += 1

    def crash(self, choose: Choose) -> MemoryFiles:
        """Return the disk as the next start finds it; `choose` decides what of the rest is kept."""
        after = MemoryFiles()
        after._folders = set(self._folders)
        names = dict(self._durable_names)
        for change in self._unsynced[: choose(0, len(self._unsynced))]:
            _apply(names, change)
        nodes = {id(node): node.after_crash(choose) for node in names.values()}
        after._names = {path: nodes[id(node)] for path, node in names.items()}
        after._durable_names = dict(after._names)
        return after

    def contents(self, path: str) -> bytearray:
        """Return the bytes of a file, to be read and changed."""
        return self._names[path].data

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        if create:
            if path in self._names:
                raise FileExistsError(path)
            self._change({path: _Node()})
        elif path not in self._names:
            raise FileNotFoundError(path)
        return MemoryFile(self, self._names[path])

    def exists(self, path: str) -> bool:
        return path in self._names or path in self._folders

    def listdir(self, path: str) -> list[str]:
        prefix = path + "/"
        inside = {*self._names, *self._folders}
        return sorted({p[len(prefix) :].split("/")[0] for p in inside if p.startswith(prefix)})

    def make_folder(self, path: str) -> None:
        self._folders.add(path)

    def rename(self, source: str, target: str) -> None:
        self._change({target: self._names[source], source: None})

    def remove(self, path: str) -> None:
        if path not in self._names:
            raise FileNotFoundError(path)
        self._change({path: None})

    def remove_folder(self, path: str) -> None:
        self._folders.discard(path)
        for name in [name for name in self._names if name.startswith(path + "/")]:
            self._change({name: None})

    def sync_folder(self, path: str) -> None:
        self.step()
        waiting, self._unsynced = self._unsynced, []
        for change in waiting:
            if all(name.rpartition("/")[0] == path for name in change):
                _apply(self._durable_names, change)
            else:
                self._unsynced.append(change)

    def lock(self, path: str) -> _Lock:
        if path in self._locked:
            raise FolderLocked(path)
        self._locked.add(path)
        return _Lock(self._locked, path)

    def free_bytes(self, path: str) -> int:
        return 2**40

    def _change(self, change: _Change) -> None:
        self.step()
        self._unsynced.append(change)
        _apply(self._names, change)


def _apply(names: dict[str, _Node], change: _Change) -> None:
    for path, node in change.items():
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node
