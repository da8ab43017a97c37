"""A disk in memory that knows what a parser may ask of it."""

from __future__ import annotations

from random import Random

from cute_logger.replication.sim.disk import SimDisk
from cute_logger.storage.filesystem import File

READ_BYTES_MAX = 4 << 20
"""More than this may be asked for only where the file has it: a read allocates what it is asked
for, so a length that was read must be compared with the file first.
"""


class Disk(SimDisk):
    def __init__(self) -> None:
        super().__init__(Random(0))
        self.is_usable = True

    def open(self, path: str, *, create: bool = False) -> File:
        return _Checked(super().open(path, create=create))

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file, its folders too."""
        self.make_folder(path.rpartition("/")[0])
        file = self.open(path, create=not self.exists(path))
        file.truncate(0)
        file.write_at(0, [data])

    def get(self, path: str) -> bytes:
        file = super().open(path)
        return file.read_at(0, file.size())

    def files_in(self, folder: str) -> list[str]:
        return [f"{folder}/{name}" for name in self.listdir(folder)]


class _Checked:
    """An open file; a `File`."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.size, self.write_at, self.truncate = file.size, file.write_at, file.truncate
        self.sync, self.map, self.close = file.sync, file.map, file.close

    def read_at(self, position: int, length: int) -> bytes:
        assert position >= 0, "a read before the beginning"
        assert length >= 0, "a negative length"
        assert length <= max(READ_BYTES_MAX, self.size() - position), "an unchecked length"
        return self._file.read_at(position, length)
