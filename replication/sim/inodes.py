"""Files and folders of a simulated disk: what is read now, what a power loss may leave of it."""

from __future__ import annotations

from random import Random
from typing import TypeAlias

PAGE_BYTES = 4096

Names: TypeAlias = "dict[str, FileNode | FolderNode]"
Change: TypeAlias = "dict[str, FileNode | FolderNode | None]"
"""Names that come, or go (None), at once."""


class FileNode:
    """The bytes of one file, whatever it is called."""

    def __init__(self, synced: bytes | bytearray = b"") -> None:
        self.size = len(synced)
        self._bytes = bytearray(synced)
        """What is read; may be longer than the file, with zeros behind its end."""
        self._synced = bytearray(synced)
        self._unsynced: list[tuple[int, bytes | None]] = []
        """(position, bytes) of each write since, (size, None) of each truncation."""
        self._is_mapped = False

    def read(self, position: int, length: int) -> bytes:
        return bytes(self._bytes[position : min(position + length, self.size)])

    def write(self, position: int, data: bytes) -> None:
        if not data:
            return
        end = position + len(data)
        self._reserve(end)
        self._bytes[position:end] = data
        self.size = max(self.size, end)
        self._unsynced.append((position, data))

    def truncate(self, size: int) -> None:
        self._reserve(size)
        if size < self.size:
            self._bytes[size : self.size] = bytes(self.size - size)
        self.size = size
        self._unsynced.append((size, None))

    def sync(self) -> None:
        if self._is_mapped:
            self._synced = self._bytes[: self.size]
        else:
            for change in self._unsynced:
                _apply(self._synced, *change)
        self._unsynced.clear()

    def lose_unsynced(self) -> None:
        """What was written since the last sync can be read, but no sync will ever write it."""
        self._unsynced.clear()

    def map(self, length: int) -> memoryview:
        assert length <= self.size, "a map beyond the end of the file"
        self._is_mapped = True
        return memoryview(self._bytes)[:length]

    @property
    def still_size(self) -> int:
        """So many bytes from the beginning are durable, and nothing waits to be written to them."""
        changed = [position for position, _ in self._unsynced]
        return min([len(self._synced), self.size, *changed])

    def rot(self, position: int, mask: bytes) -> None:
        """Flip durable bytes, as far as nothing waits to be written to them.

        Nobody did it: neither a power loss nor a sync brings them back.
        """
        end = min(position + len(mask), self.still_size)
        for at, flips in zip(range(position, end), mask, strict=False):
            self._bytes[at] ^= flips
            self._synced[at] ^= flips

    def contents(self) -> tuple[bytes, bytes]:
        """What is read, and what was synced."""
        return self.read(0, self.size), bytes(self._synced)

    def _reserve(self, size: int) -> None:
        if size > len(self._bytes):
            room = bytes(max(size, 2 * len(self._bytes), PAGE_BYTES) - len(self._bytes))
            try:
                self._bytes += room
            except BufferError:
                # A map keeps the old bytes where they are; whoever grew the file maps it again.
                self._bytes = self._bytes + room

    def synced_only(self, without: str = "") -> FileNode:
        return FileNode(self._synced)

    def after_power_loss(self, rng: Random) -> FileNode:
        if not self._unsynced and not self._is_mapped:
            return self.synced_only()
        is_cut = any(data is None for _, data in self._unsynced)
        if is_cut or rng.random() < 0.5:
            return FileNode(self._first_part(rng))
        return FileNode(self._some_pages(rng))

    def _first_part(self, rng: Random) -> bytearray:
        """The first of the unsynced writes, the last of those torn."""
        kept = bytearray(self._synced)
        count = rng.randint(0, len(self._unsynced))
        for change in self._unsynced[:count]:
            _apply(kept, *change)
        if count < len(self._unsynced):
            position, data = self._unsynced[count]
            if data is not None:
                _apply(kept, position, data[: rng.randint(0, len(data))])
        return kept

    def _some_pages(self, rng: Random) -> bytearray:
        """Any of the pages written to, one of them half; the file as long as any write made it."""
        ends = [position + len(data or b"") for position, data in self._unsynced]
        size = max(rng.choice([len(self._synced), self.size, *ends]), len(self._synced))
        kept = self._synced + bytes(size - len(self._synced))
        for start in self._dirty_pages():
            end = min(start + PAGE_BYTES, size)
            choice = rng.random()
            if choice < 0.1 and start < end:
                end = rng.randint(start, end)
            if choice < 0.55:
                kept[start:end] = self._bytes[start:end]
        return kept

    def _dirty_pages(self) -> list[int]:
        if self._is_mapped:
            return list(range(0, self.size, PAGE_BYTES))
        pages: set[int] = set()
        for position, data in self._unsynced:
            first = position - position % PAGE_BYTES
            pages.update(range(first, position + len(data or b""), PAGE_BYTES))
        return sorted(pages)


class FolderNode:
    """The names in one folder."""

    def __init__(self, synced: Names | None = None) -> None:
        self.names: Names = dict(synced or {})
        self._synced: Names = dict(synced or {})
        self._unsynced: list[Change] = []

    def change(self, change: Change) -> None:
        _rename(self.names, change)
        self._unsynced.append(change)

    def sync(self) -> None:
        self._synced = dict(self.names)
        self._unsynced.clear()

    def synced_only(self, without: str = "") -> FolderNode:
        kept = {name: node for name, node in self._synced.items() if name != without}
        return FolderNode({name: node.synced_only(without) for name, node in kept.items()})

    def after_power_loss(self, rng: Random) -> FolderNode:
        names = dict(self._synced)
        changes = self._unsynced
        choice = rng.randrange(4)
        if choice == 0:
            changes = []
        elif choice == 1:
            changes = changes[: rng.randint(0, len(changes))]
        elif choice == 2:
            changes = [change for change in changes if rng.random() < 0.5]
        for change in changes:
            _rename(names, change)
        return FolderNode({name: node.after_power_loss(rng) for name, node in names.items()})


def _apply(content: bytearray, position: int, data: bytes | None) -> None:
    if position > len(content):
        content += bytes(position - len(content))
    if data is None:
        del content[position:]
    else:
        content[position : position + len(data)] = data


def _rename(names: Names, change: Change) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
