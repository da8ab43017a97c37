"""The real file system keeps the contract that the rest of storage builds on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cute_logger.storage.errors import FolderLocked
from cute_logger.storage.filesystem import OS_FILES


def test_a_file_reads_back_what_was_written_where_it_was_written(tmp_path: Path) -> None:
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(3, [b"abc", bytearray(b"de"), memoryview(b"_f_")[1:2]])
    assert file.size() == 9
    assert file.read_at(0, 9) == b"\0\0\0abcdef"
    assert file.read_at(4, 2) == b"bc"
    file.close()


def test_a_read_is_short_only_where_the_file_ends(tmp_path: Path) -> None:
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(0, [b"abcdef"])
    assert file.read_at(4, 100) == b"ef"
    assert file.read_at(6, 100) == b""
    assert file.read_at(100, 1) == b""
    file.close()


def test_more_buffers_than_one_system_call_takes_are_all_written(tmp_path: Path) -> None:
    buffers = [number.to_bytes(2, "big") for number in range(2 * os.sysconf("SC_IOV_MAX") + 1)]
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(0, [b"", *buffers, b""])
    assert file.read_at(0, 3 * len(buffers)) == b"".join(buffers)
    file.close()


def test_writes_cut_short_go_on_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwritev

    def five_bytes(fd: int, buffers: list[bytes], position: int) -> int:
        return whole(fd, [b"".join(buffers)[:5]], position)

    monkeypatch.setattr(os, "pwritev", five_bytes)
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(1, [b"abc", b"defghij", b"", b"k", b"lmnopqr"])
    assert file.read_at(1, 100) == b"abcdefghijklmnopqr"
    file.close()


def test_reads_cut_short_go_on_until_the_file_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pread

    def three_bytes(fd: int, length: int, position: int) -> bytes:
        return whole(fd, min(length, 3), position)

    monkeypatch.setattr(os, "pread", three_bytes)
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(0, [b"abcdefgh"])
    assert file.read_at(1, 6) == b"bcdefg"
    assert file.read_at(1, 60) == b"bcdefgh"
    file.close()


def test_a_disk_that_takes_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - errno says which
        file.write_at(0, [b"x"])
    assert refused.value.errno == errno.EIO
    file.close()


def test_create_refuses_a_file_that_is_there_and_open_one_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        OS_FILES.open(f"{tmp_path}/a")
    OS_FILES.open(f"{tmp_path}/a", create=True).close()
    with pytest.raises(FileExistsError):
        OS_FILES.open(f"{tmp_path}/a", create=True)


def test_a_map_and_the_file_show_each_other_their_bytes(tmp_path: Path) -> None:
    file = OS_FILES.open(f"{tmp_path}/a", create=True)
    file.write_at(0, [bytes(8)])
    view = file.map(8)
    view[2:4] = b"hi"
    file.write_at(6, [b"x"])
    assert file.read_at(0, 8) == bytes(view) == b"\0\0hi\0\0x\0"
    view.release()
    file.truncate(3)
    assert file.size() == 3
    file.close()
    file.close()


def test_folders_are_listed_in_order_renamed_into_and_removed(tmp_path: Path) -> None:
    folder = f"{tmp_path}/x/y"
    OS_FILES.make_folder(folder)
    OS_FILES.make_folder(folder)
    for name in ("b", "c", "a"):
        OS_FILES.open(f"{folder}/{name}", create=True).close()
    OS_FILES.rename(f"{folder}/c", f"{folder}/a")
    OS_FILES.sync_folder(folder)
    assert OS_FILES.listdir(folder) == ["a", "b"]
    OS_FILES.remove(f"{folder}/b")
    assert not OS_FILES.exists(f"{folder}/b")
    OS_FILES.remove_folder(f"{tmp_path}/x")
    assert not OS_FILES.exists(f"{tmp_path}/x")


def test_a_lock_excludes_others_until_it_is_closed(tmp_path: Path) -> None:
    path = f"{tmp_path}/lock"
    lock = OS_FILES.lock(path)
    with pytest.raises(FolderLocked) as refused:
        OS_FILES.lock(path)
    assert refused.value.path == path
    lock.close()
    OS_FILES.lock(path).close()


def test_the_disk_of_a_folder_has_room(tmp_path: Path) -> None:
    assert OS_FILES.free_bytes(str(tmp_path)) > 0
