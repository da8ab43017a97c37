from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cute_logger.storage import checkpoint
from cute_logger.storage.errors import Damaged
from cute_logger.storage.filesystem import OS_FILES

from .memory_files import MemoryFiles, PowerLost, keep_all, keep_nothing

OLD = [b"old", b"", bytes(1000)]
NEW = [b"new state", bytes(range(256)) * 20]

TWO_SECTIONS = bytes.fromhex(
    "43555445434b5031"  # CUTECKP1
    "0200000000000000 342f5e63 6162"  # "ab"
    "0000000000000000 de196de9"  # ""
    "ffffffffffffffff 095c8f94 02000000"
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert checkpoint.load(OS_FILES, folder) is None
    for sections in (OLD, NEW, []):
        checkpoint.save(OS_FILES, folder, sections)
        assert checkpoint.load(OS_FILES, folder) == sections
    assert OS_FILES.listdir(folder) == ["checkpoint"]


def test_two_sections_are_these_bytes(tmp_path: Path) -> None:
    checkpoint.save(OS_FILES, str(tmp_path), [b"ab", b""])
    assert (tmp_path / "checkpoint").read_bytes() == TWO_SECTIONS


def test_sections_are_asked_for_one_by_one(tmp_path: Path) -> None:
    def sections() -> Iterator[bytes]:
        for number in range(3):
            size = (tmp_path / "checkpoint.tmp").stat().st_size
            assert size == 8 + number * (12 + 100)
            yield bytes(100)

    checkpoint.save(OS_FILES, str(tmp_path), sections())
    assert checkpoint.load(OS_FILES, str(tmp_path)) == [bytes(100)] * 3


def test_sections_that_fail_leave_the_old_checkpoint(tmp_path: Path) -> None:
    def sections() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("no more")

    checkpoint.save(OS_FILES, str(tmp_path), OLD)
    with pytest.raises(RuntimeError):
        checkpoint.save(OS_FILES, str(tmp_path), sections())
    assert checkpoint.load(OS_FILES, str(tmp_path)) == OLD
    assert OS_FILES.listdir(str(tmp_path)) == ["checkpoint"]


@pytest.mark.parametrize("choose", [keep_nothing, keep_all, lambda low, high: (low + high) // 2])
@pytest.mark.parametrize("old", [None, OLD])
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one(
    old: list[bytes] | None, choose: object
) -> None:
    assert callable(choose)
    steps = 0
    while True:
        disk = MemoryFiles()
        if old is not None:
            checkpoint.save(disk, "data", old)
        disk.steps_max = disk.steps + steps
        try:
            checkpoint.save(disk, "data", NEW)
            finished = True
        except PowerLost:
            finished = False
        after = disk.crash(choose)
        found = checkpoint.load(after, "data")
        assert found in ([NEW] if finished else [old, NEW])
        assert not after.exists("data/checkpoint.tmp")
        checkpoint.save(after, "data", [b"next"])
        assert checkpoint.load(after.crash(keep_nothing), "data") == [b"next"]
        if finished:
            assert steps > 5
            break
        steps += 1


def test_no_flipped_bit_goes_unnoticed() -> None:
    for bit in range(8 * len(TWO_SECTIONS)):
        disk = MemoryFiles()
        checkpoint.save(disk, "data", [b"ab", b""])
        disk.contents("data/checkpoint")[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            checkpoint.load(disk, "data")


def test_a_file_that_ends_early_or_late_is_damaged() -> None:
    starts = [TWO_SECTIONS[:size] for size in range(len(TWO_SECTIONS))]
    for content in [*starts, TWO_SECTIONS + b"\0"]:
        disk = MemoryFiles()
        disk.open("data/checkpoint", create=True).write_at(0, [content])
        with pytest.raises(Damaged):
            checkpoint.load(disk, "data")


def test_sections_in_another_order_are_damaged() -> None:
    disk = MemoryFiles()
    checkpoint.save(disk, "data", [b"ab", b"cd"])
    data = disk.contents("data/checkpoint")
    data[8:36] = data[22:36] + data[8:22]
    with pytest.raises(Damaged):
        checkpoint.load(disk, "data")
