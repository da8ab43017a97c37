"""Who only looks changes nothing, whatever is asked for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cute_logger.storage import OS_FILES, FolderLocked
from cute_logger.storage.read_only import READ_ONLY_FILES

FORBIDDEN: dict[str, Callable[[str], object]] = {
    "create": lambda path: READ_ONLY_FILES.open(path + "/new", create=True),
    "write": lambda path: READ_ONLY_FILES.open(path + "/file").write_at(0, [b"x"]),
    "truncate": lambda path: READ_ONLY_FILES.open(path + "/file").truncate(0),
    "map": lambda path: READ_ONLY_FILES.open(path + "/file").map(4),
    "make_folder": lambda path: READ_ONLY_FILES.make_folder(path + "/new"),
    "rename": lambda path: READ_ONLY_FILES.rename(path + "/file", path + "/new"),
    "remove": lambda path: READ_ONLY_FILES.remove(path + "/file"),
    "remove_folder": lambda path: READ_ONLY_FILES.remove_folder(path),
    "sync_folder": lambda path: READ_ONLY_FILES.sync_folder(path),
    "lock that is not there": lambda path: READ_ONLY_FILES.lock(path + "/lock"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"four")
    return tmp_path


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_would_change_something_is_an_error(folder: Path, name: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        FORBIDDEN[name](str(folder))
    assert os.listdir(folder) == ["file"]
    assert (folder / "file").read_bytes() == b"four"


def test_it_reads(folder: Path) -> None:
    file = READ_ONLY_FILES.open(f"{folder}/file")
    assert (file.size(), file.read_at(1, 10)) == (4, b"our")
    file.close()


def test_blocks_that_the_disk_lost_are_zeros(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_bytes(b"x" * 9000)
    pread = os.pread

    def lossy(fd: int, length: int, position: int) -> bytes:
        if position < 8192 and position + length > 4096:
            raise OSError(errno.EIO, "the disk is worn")
        return pread(fd, length, position)

    monkeypatch.setattr(os, "pread", lossy)
    file = READ_ONLY_FILES.open(f"{folder}/file")
    assert file.read_at(100, 20_000) == b"x" * 3996 + bytes(4096) + b"x" * 808
    file.close()


def test_many_may_look_and_nobody_writes_meanwhile(folder: Path) -> None:
    path = f"{folder}/file"
    first, second = READ_ONLY_FILES.lock(path), READ_ONLY_FILES.lock(path)
    with pytest.raises(FolderLocked):
        OS_FILES.lock(path)
    first.close()
    second.close()
    writer = OS_FILES.lock(path)
    with pytest.raises(FolderLocked):
        READ_ONLY_FILES.lock(path)
    writer.close()
