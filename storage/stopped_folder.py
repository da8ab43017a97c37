"""A data folder that no node runs on, to be looked at. Nothing in it is changed or created.

The lock is shared with others that look; while it is held no node starts, so that what is found is
not half of what a node is just writing. Folders without the file of the lock, copies for example,
are looked at without it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from .errors import Damaged, WrongFormat
from .filesystem import FileSystem
from .findings import Finding
from .folder import (
    ASIDE_SUFFIX,
    FORMAT_NAME,
    FORMAT_TEXT,
    LOCK_NAME,
    NODE_NAME,
    check_format,
    read_small,
)
from .node_mark import FORMAT, NodeMark, decode_mark
from .read_only import READ_ONLY_FILES


class StoppedFolder:
    """See the module; `open` makes one."""

    def __init__(self, path: str, files: FileSystem, held: ExitStack) -> None:
        self.path = path
        self.wal_folder = f"{path}/wal"
        self.streams_folder = f"{path}/streams"
        self.files = files
        self.mark: NodeMark | None = None
        """None if it cannot be read."""
        self.findings: list[Finding] = []
        """What is wrong with the marks themselves."""
        self._held = held

    @classmethod
    def open(cls, path: str, files: FileSystem = READ_ONLY_FILES) -> StoppedFolder:
        """Raises FolderLocked while a node has it, WrongFormat if it is another version's or no
        data folder at all, OSError.
        """
        path = posixpath.normpath(path)
        if not files.exists(f"{path}/{FORMAT_NAME}"):
            raise WrongFormat(path, _why_none(files, path))
        with ExitStack() as held:
            if files.exists(f"{path}/{LOCK_NAME}"):
                held.callback(files.lock(f"{path}/{LOCK_NAME}").close)
            folder = cls(path, files, held)
            folder.findings += folder._read_marks()
            folder._held = held.pop_all()
        return folder

    def stream_folder(self, number: int) -> str:
        return f"{self.streams_folder}/{number:010d}"

    def relative(self, path: str) -> str:
        """Return a path inside the folder as seen from there."""
        return path.removeprefix(f"{self.path}/")

    def list_inside(self, path: str) -> list[str]:
        """Return the names in one of its folders; none if that is not there."""
        return self.files.listdir(path) if self.files.exists(path) else []

    def size_of(self, path: str) -> int:
        """Return the length of a file; 0 if it is not there."""
        if not self.files.exists(path):
            return 0
        file = self.files.open(path)
        try:
            return file.size()
        finally:
            file.close()

    def _read_marks(self) -> Iterator[Finding]:
        files, path = self.files, self.path
        mark_path = f"{path}/{NODE_NAME}"
        try:
            self.mark = decode_mark(read_small(files, mark_path))
        except (ValueError, FileNotFoundError, RecursionError) as error:
            try:
                check_format(files, path)
            except Damaged as damage:
                yield Finding(damage.path, 0, damage.reason)
            yield Finding(mark_path, 0, f"it does not say whose data this is: {error}")
            return
        if self.mark.format != FORMAT:
            reason = f"its format is {self.mark.format}, this version reads {FORMAT}"
            raise WrongFormat(path, reason)
        if read_small(files, f"{path}/{FORMAT_NAME}") != FORMAT_TEXT:
            yield Finding(f"{path}/{FORMAT_NAME}", 0, "it does not name the format")
        if self.mark.is_moving:
            reason = "damaged data is being set aside: the next start goes on with it"
            yield Finding(mark_path, 0, reason, is_damage=False)
        for name in files.listdir(path):
            if name.endswith(ASIDE_SUFFIX):
                reason = "was set aside as damaged until all is fetched anew: not looked at"
                yield Finding(f"{path}/{name}", 0, reason, is_damage=False)

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _why_none(files: FileSystem, path: str) -> str:
    inside = [name for name in files.listdir(path) if files.exists(f"{path}/{name}/{FORMAT_NAME}")]
    if inside:
        return f"this is no data folder, but holds some: {', '.join(inside)}"
    return f'this is no data folder: there is no file "{FORMAT_NAME}"'
