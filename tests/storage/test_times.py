"""Time index: the first batch at or after a time, whatever became of the files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.storage import Log, Record
from cute_logger.storage.errors import DamagedBatch, OffsetOutOfRange
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.index import START
from cute_logger.storage.log import LogConfig
from cute_logger.storage.time_index import TimeIndex

SMALL = LogConfig(segment_bytes_max=700, index_interval_bytes=200)
folders = itertools.count()


def fill(log: Log, timestamps: list[int]) -> None:
    for timestamp in timestamps:
        log.append_records([Record(b"v" * 30, timestamp=timestamp)], timestamp=0)


def expected(timestamps: list[int], wanted: int, start: int = 0) -> int:
    return next(
        (at for at in range(start, len(timestamps)) if timestamps[at] >= wanted), len(timestamps)
    )


def times_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.times"))


timestamps_of_records = st.lists(st.integers(0, 40), max_size=40)


@settings(max_examples=60, deadline=None)
@given(timestamps_of_records, st.integers(0, 40), timestamps_of_records)
def test_it_is_what_a_scan_finds(tmp_path_factory, first, split, second) -> None:
    folder = tmp_path_factory.mktemp("log") / str(next(folders))
    with Log.open(str(folder), SMALL) as log:
        fill(log, first)
        for wanted in (0, split, 41):
            assert log.find_timestamp(wanted) == expected(first, wanted)
        vouched = log.sync()
    with Log.open(str(folder), SMALL, vouched=vouched) as log:
        fill(log, second)
        for wanted in range(0, 42, 3):
            assert log.find_timestamp(wanted) == expected(first + second, wanted)
    with Log.open(str(folder), SMALL) as log:
        for wanted in range(0, 42, 3):
            assert log.find_timestamp(wanted) == expected(first + second, wanted)


def test_from_an_offset_on(tmp_path: Path) -> None:
    timestamps = [5, 9, 1, 2, 3, 4, 5, 6, 7, 8] * 3
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, timestamps)
        assert log.segment_count > 3
        log.trim(15)
        assert log.find_timestamp(0) == 15
        for start in range(15, 31):
            found = log.find_timestamp(9, start)
            assert start <= found <= expected(timestamps, 9, start)
        with pytest.raises(OffsetOutOfRange):
            log.find_timestamp(0, 14)
        with pytest.raises(OffsetOutOfRange):
            log.find_timestamp(0, 31)


def test_sealed_segments_have_a_file_and_nothing_is_walked(tmp_path: Path, monkeypatch) -> None:
    timestamps = list(range(100, 140))
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, timestamps)
        state = log.sync()
    assert len(times_files(tmp_path)) == len(state.segments) - 1
    built = []
    save = TimeIndex.save

    def counted(self: TimeIndex, *args: Any) -> None:
        built.append(args)
        save(self, *args)

    monkeypatch.setattr(TimeIndex, "save", counted)
    with Log.open(str(tmp_path), SMALL, vouched=state) as log:
        for wanted in range(95, 145):
            assert log.find_timestamp(wanted) == expected(timestamps, wanted)
    assert len(built) == 1, "only of the segment that was not sealed"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_missing_file_is_made_again(tmp_path: Path, spoil) -> None:
    timestamps = list(range(100, 140))
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, timestamps)
        state = log.sync()
    files = {path: path.read_bytes() for path in times_files(tmp_path)}
    for path in files:
        spoil(path)
    with Log.open(str(tmp_path), SMALL, vouched=state) as log:
        assert log.find_timestamp(139) == 39
    assert {path: path.read_bytes() for path in files} == files


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    timestamps = [*range(100, 112), *range(50, 75)]
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, timestamps)
        state = log.sync()
    path = times_files(tmp_path)[0]
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        with Log.open(str(tmp_path), SMALL, vouched=state) as log:
            for wanted in (50, 103, 111, 112):
                assert log.find_timestamp(wanted) == expected(timestamps, wanted)
        assert path.read_bytes() == good


def test_the_index_of_another_life_of_the_segment_is_not_believed(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, [1, 2, 3])
        vouched = log.sync()
        fill(log, [50])
        log.roll()
        assert times_files(tmp_path)
    with Log.open(str(tmp_path), SMALL, vouched=vouched) as log:
        assert log.find_timestamp(40) == 3
        fill(log, [4])
        assert log.find_timestamp(40) == 4
        assert log.find_timestamp(4) == 3


def test_the_log_of_the_same_length_again_is_another_one(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, [1, 2, 3])
        vouched = log.sync()
        fill(log, [50])
        log.roll()
    with Log.open(str(tmp_path), SMALL, vouched=vouched) as log:
        fill(log, [4])
        assert log.find_timestamp(5) == 4
        assert log.find_timestamp(4) == 3


def test_a_trimmed_segment_takes_its_time_index_along(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, list(range(40)))
        before = len(times_files(tmp_path))
        log.trim(20)
        log.sync()
        log.remove_trimmed()
        assert 0 < len(times_files(tmp_path)) < before


def test_damage_on_the_way_is_told(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        fill(log, list(range(40)))
        state = log.sync()
    for path in times_files(tmp_path):
        path.unlink()
    store = min(tmp_path.glob("*.log"))
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    with Log.open(str(tmp_path), SMALL, vouched=state) as log:
        with pytest.raises(DamagedBatch) as caught:
            log.find_timestamp(30)
        assert caught.value.path == str(store)


def test_an_index_of_another_segment_is_none(tmp_path: Path) -> None:
    index = TimeIndex(100)
    index.add(0, 0, 7)
    index.add(1, 100, 9)
    index.save(OS_FILES, f"{tmp_path}/x", b"a" * 16)
    assert TimeIndex.open(OS_FILES, f"{tmp_path}/x", b"b" * 16) is None
    found = TimeIndex.open(OS_FILES, f"{tmp_path}/x", b"a" * 16)
    assert found is not None
    assert found.find(7) == START
    assert found.find(8) == (1, 100)
    assert found.max_timestamp == 9
    found.close()
