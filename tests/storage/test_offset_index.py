"""The offset index finds the nearest entry, and drops what makes no sense."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.index import POSITION_MAX, RELATIVE_OFFSET_MAX, START, OffsetIndex

STORE_SIZE = 10**9
INTERVAL = 100


def opened(path: Path, store_size: int = STORE_SIZE) -> OffsetIndex:
    return OffsetIndex.open(OS_FILES, str(path), INTERVAL, store_size=store_size)


def entries_in(path: Path) -> list[tuple[int, int]]:
    data = path.read_bytes()
    words = [data[start : start + 4] for start in range(0, len(data), 4)]
    numbers = [int.from_bytes(word, "little") for word in words]
    return list(zip(numbers[1::2], numbers[::2], strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index"


def test_an_empty_index_has_no_file_and_begins_at_the_start(path: Path) -> None:
    index = opened(path)
    index.add(0, 0)
    assert index.find(0) == index.find(7) == index.last() == START
    index.close()
    assert not path.exists()


def test_find_returns_the_newest_entry_at_or_below(path: Path) -> None:
    index = opened(path)
    for relative_offset in range(10, 100, 10):
        index.add(relative_offset, relative_offset * INTERVAL)
    assert index.find(9) == START
    assert index.find(10) == (10, 1000)
    assert index.find(19) == (10, 1000)
    assert index.find(20) == (20, 2000)
    assert index.find(10**6) == index.last() == (90, 9000)
    index.close()


def test_batches_nearer_than_an_interval_get_no_entry(path: Path) -> None:
    index = opened(path)
    for relative_offset, position in [(0, 0), (1, 99), (2, 100), (3, 199), (4, 201), (5, 250)]:
        index.add(relative_offset, position)
    assert index.entries() == [(2, 100), (4, 201)]
    index.close()


def test_the_largest_entry_fits(path: Path) -> None:
    index = opened(path, POSITION_MAX + 1)
    index.add(RELATIVE_OFFSET_MAX, POSITION_MAX)
    assert index.find(RELATIVE_OFFSET_MAX) == (RELATIVE_OFFSET_MAX, POSITION_MAX)
    index.close()


def test_an_index_grows_and_comes_back(path: Path) -> None:
    written = [(number, number * INTERVAL) for number in range(1, 3000)]
    index = opened(path)
    for relative_offset, position in written:
        index.add(relative_offset, position)
    assert index.find(2000) == (2000, 2000 * INTERVAL)
    index.close()
    assert entries_in(path) == written
    index = opened(path)
    assert index.doubt is None
    assert index.entries() == written
    index.add(3000, 3000 * INTERVAL)
    assert index.last() == (3000, 3000 * INTERVAL)
    index.close()
    assert entries_in(path) == [*written, (3000, 3000 * INTERVAL)]


def test_room_that_a_crash_left_behind_is_no_entry(path: Path) -> None:
    index = opened(path)
    index.add(1, 100)
    assert path.stat().st_size > 8
    again = opened(path)
    assert again.doubt is None
    assert again.entries() == [(1, 100)]
    again.close()
    assert path.stat().st_size == 8
    os.truncate(path, 4096)
    index.close()


def test_the_room_is_allocated_not_a_hole(path: Path) -> None:
    index = opened(path)
    for number in range(1, 1026):
        index.add(number, number * INTERVAL)
    assert path.stat().st_size >= 2 * 1025 * 8 - 4096
    assert path.stat().st_blocks * 512 >= path.stat().st_size
    index.close()


def test_entries_that_were_dropped_do_not_come_back_after_a_crash(path: Path) -> None:
    index = opened(path)
    for number in range(1, 6):
        index.add(number, number * INTERVAL)
    index.close()
    crashed = opened(path, store_size=300)
    index = opened(path)
    assert index.entries() == [(1, 100), (2, 200)]
    index.close()
    crashed.close()


def test_sealing_gives_back_the_room_and_reading_goes_on(path: Path) -> None:
    index = opened(path)
    index.add(1, 100)
    index.seal()
    assert path.stat().st_size == 8
    assert index.find(5) == (1, 100)
    index.close()


def test_entries_behind_the_end_of_the_store_are_dropped(path: Path) -> None:
    index = opened(path)
    for number in range(1, 6):
        index.add(number, number * INTERVAL)
    index.close()
    index = opened(path, store_size=300)
    assert index.doubt is None
    assert index.entries() == [(1, 100), (2, 200)]
    index.close()
    assert entries_in(path) == [(1, 100), (2, 200)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"x",
        bytes(7),
        bytes([2] * 8 + [1] * 8),
        bytes([2] * 8 + [2] * 8),
        (1 << 32 | 800).to_bytes(8, "little") + (2 << 32 | 400).to_bytes(8, "little"),
        bytes([1] * 8 + [0] * 8 + [2] * 8),
        os.urandom(8001),
    ],
    ids=[
        "one byte",
        "seven zeros",
        "descending",
        "twice the same",
        "descending positions",
        "behind the end",
        "random",
    ],
)
def test_a_file_that_makes_no_sense_is_doubted_and_emptied(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    index = opened(path)
    assert index.doubt is not None
    assert index.entries() == []
    index.add(1, 100)
    index.close()
    assert entries_in(path) == [(1, 100)]


def test_a_file_of_absurd_length_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)
    index = opened(path)
    assert index.doubt is not None
    index.close()
    assert path.stat().st_size == 0


def test_replace_takes_the_place_of_everything(path: Path) -> None:
    index = opened(path)
    for number in range(1, 600):
        index.add(number, number * INTERVAL)
    index.replace(index.entries()[:3])
    assert index.entries() == [(1, 100), (2, 200), (3, 300)]
    index.close()
    assert entries_in(path) == [(1, 100), (2, 200), (3, 300)]
