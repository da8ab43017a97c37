"""After a crash or on a bad disk: torn tails are cut, damage is told, nothing good is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cute_logger.storage import (
    Batch,
    Damaged,
    Log,
    LogConfig,
    LogState,
    Record,
    build_batch,
    encode_records,
)

SMALL = LogConfig(segment_bytes_max=1000, index_interval_bytes=200)
ALL = 10**9
SIZE = 200


def batch(offset: int, body_size: int = SIZE - 96) -> Batch:
    body = bytes(offset % 256 for _ in range(body_size))
    return build_batch(body, count=1, base_offset=offset, timestamp=1, max_timestamp=1)


def batches(start: int, end: int) -> list[Batch]:
    return [batch(offset) for offset in range(start, end)]


def written(folder: Path, end: int, config: LogConfig = SMALL) -> LogState:
    """Write a log of offsets 0 … end, and return the state of its last sync."""
    with Log.open(str(folder), config) as log:
        log.append(batches(0, end))
        return log.sync()


def store(folder: Path, base_offset: int) -> Path:
    return folder / f"{base_offset:020d}.log"


def index(folder: Path, base_offset: int) -> Path:
    return folder / f"{base_offset:020d}.index"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.log")}


def assert_goes_on(folder: Path, end: int) -> None:
    """The log holds offsets 0 … end, takes more, and still does so when it is opened again."""
    with Log.open(str(folder), SMALL) as log:
        assert log.log_end_offset == end
        assert log.read(0, ALL) == batches(0, end)
        log.append(batches(end, end + 3))
        assert log.read(0, ALL) == batches(0, end + 3)
    with Log.open(str(folder), SMALL) as log:
        assert log.read(0, ALL) == batches(0, end + 3)


@pytest.mark.parametrize("end", [1, 3, 8], ids=["first batch", "third batch", "second segment"])
def test_a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on(tmp_path: Path, end: int) -> None:
    state = written(tmp_path / "whole", end)
    base_offset, size = state.segments[-1]
    for torn in range(size - SIZE, size):
        folder = tmp_path / "torn"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(store(folder, base_offset), torn)
        assert_goes_on(folder, end - 1)
        shutil.rmtree(folder)


def test_a_torn_tail_of_zeros_or_noise_is_cut(tmp_path: Path) -> None:
    for number, tail in enumerate((bytes(50), bytes(5000), os.urandom(5000), b"CL\x01" * 2000)):
        folder = tmp_path / str(number)
        written(folder, 3)
        with store(folder, 0).open("ab") as file:
            file.write(tail)
        assert_goes_on(folder, 3)


def test_a_torn_tail_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, 3)
    os.truncate(store(tmp_path, 0), 3 * SIZE - 1)
    Log.open(str(tmp_path), SMALL).close()
    [record] = caplog.records
    assert record.message == "torn tail cut"
    assert (record.__dict__["position"], record.__dict__["cut"]) == (2 * SIZE, SIZE - 1)


def test_every_flipped_bit_of_the_last_batch_makes_it_a_torn_tail(tmp_path: Path) -> None:
    written(tmp_path, 2)
    whole = store(tmp_path, 0).read_bytes()
    for bit in range(SIZE * 8, 2 * SIZE * 8):
        garbled = bytearray(whole)
        garbled[bit // 8] ^= 1 << bit % 8
        store(tmp_path, 0).write_bytes(garbled)
        with Log.open(str(tmp_path), SMALL) as log:
            assert log.read(0, ALL) == batches(0, 1)


def test_every_flipped_bit_in_front_of_a_good_batch_is_damage_and_nothing_is_cut(
    tmp_path: Path,
) -> None:
    written(tmp_path, 3)
    whole = store(tmp_path, 0).read_bytes()
    for bit in range(SIZE * 8, 2 * SIZE * 8):
        garbled = bytearray(whole)
        garbled[bit // 8] ^= 1 << bit % 8
        store(tmp_path, 0).write_bytes(garbled)
        with pytest.raises(Damaged) as damaged:
            Log.open(str(tmp_path), SMALL)
        assert (damaged.value.path, damaged.value.position) == (str(store(tmp_path, 0)), SIZE)
        assert store(tmp_path, 0).read_bytes() == garbled


@pytest.mark.parametrize("hole", [1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE])
def test_a_hole_in_front_of_a_good_batch_is_damage(tmp_path: Path, hole: int) -> None:
    written(tmp_path, 4)
    data = store(tmp_path, 0).read_bytes()
    store(tmp_path, 0).write_bytes(data[:SIZE] + bytes(hole) + data[SIZE + hole :])
    with pytest.raises(Damaged, match="good batch follows"):
        Log.open(str(tmp_path), SMALL)


@pytest.mark.parametrize("distance", [2**20 - 5, 2**20 - 4, 2**20 - 3, 2**20 + 50, 2**21])
def test_a_good_batch_is_found_however_far_behind(tmp_path: Path, distance: int) -> None:
    config = LogConfig()
    written(tmp_path, 1, config)
    with store(tmp_path, 0).open("ab") as file:
        file.write(bytes(distance) + bytes(batch(5).data))
    with pytest.raises(Damaged, match=f"byte {SIZE + distance}"):
        Log.open(str(tmp_path), config)


def test_a_good_batch_in_the_wrong_place_is_damage(tmp_path: Path) -> None:
    written(tmp_path, 2)
    with store(tmp_path, 0).open("ab") as file:
        file.write(batch(3).data)
    with pytest.raises(Damaged, match="base offset 3 where 2 is due"):
        Log.open(str(tmp_path), SMALL)


def test_batches_inside_of_a_torn_batch_do_not_pass_for_ones_behind_it(tmp_path: Path) -> None:
    config = LogConfig()
    for number, inner in enumerate((0, 1, 2, 100_000)):
        folder = tmp_path / str(number)
        written(folder, 2, config)
        body = encode_records([Record(bytes(batch(inner).data)), Record(bytes(1000))])
        outer = build_batch(body, count=2, base_offset=2, timestamp=0, max_timestamp=0)
        with Log.open(str(folder), config) as log:
            log.append([outer])
        os.truncate(store(folder, 0), 2 * SIZE + outer.size - 1)
        with Log.open(str(folder), config) as log:
            assert log.read(0, ALL) == batches(0, 2)


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("end", [0, 5, 10])
def test_a_crash_between_creating_and_writing_a_segment_is_no_loss(
    tmp_path: Path, end: int, has_index: bool
) -> None:
    state = written(tmp_path, end)
    store(tmp_path, end).touch()
    if has_index:
        index(tmp_path, end).write_bytes(bytes(4096))
    with Log.open(str(tmp_path), SMALL) as log:
        assert log.log_end_offset == end
        newest = batch(end - 1) if end else None
        assert log.last_batch == (newest and newest.header_only())
        if newest:
            assert log.last_digest == newest.digest()
    assert_goes_on(tmp_path, end)
    with Log.open(str(tmp_path), SMALL, vouched=state) as log:
        assert log.read(0, ALL) == batches(0, end)


def test_an_index_left_without_its_store_is_removed(tmp_path: Path) -> None:
    written(tmp_path, 5)
    index(tmp_path, 5).write_bytes(b"left over")
    assert_goes_on(tmp_path, 5)
    assert index(tmp_path, 5).read_bytes() != b"left over"


def test_an_empty_segment_where_none_can_begin_is_damage(tmp_path: Path) -> None:
    written(tmp_path, 5)
    store(tmp_path, 6).touch()
    with pytest.raises(Damaged, match="6 is due"):
        Log.open(str(tmp_path), SMALL)


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, 5)
    others = ["notes.log", "1.log", f"{7:019d}x.log", f"{9:020d}.log.bak", "x.index"]
    for name in others:
        (tmp_path / name).write_text("mine")
    assert_goes_on(tmp_path, 5)
    with Log.open(str(tmp_path), SMALL, vouched=LogState()) as log:
        assert log.log_end_offset == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("garbage", [None, b"", b"x", bytes(8), b"\x01" * 64, os.urandom(4096)])
def test_the_last_index_may_be_anything(tmp_path: Path, garbage: bytes | None) -> None:
    written(tmp_path, 5)
    right = index(tmp_path, 0).read_bytes()
    index(tmp_path, 0).unlink()
    if garbage is not None:
        index(tmp_path, 0).write_bytes(garbage)
    Log.open(str(tmp_path), SMALL).close()
    assert index(tmp_path, 0).read_bytes() == right
    assert_goes_on(tmp_path, 5)


@pytest.mark.parametrize("kept", [0, 1, 4, 5, 6, 12])
@pytest.mark.parametrize("garble", [False, True])
def test_a_vouched_log_is_exactly_what_was_vouched_for(
    tmp_path: Path, kept: int, garble: bool
) -> None:
    config = SMALL
    with Log.open(str(tmp_path), config, vouched=LogState()) as log:
        log.append(batches(0, kept))
        state = log.sync()
        log.append([batch(offset, 150) for offset in range(kept, kept + 20)])
    if garble:
        for path in tmp_path.glob("*.log"):
            base_offset = int(path.stem)
            vouched = dict(state.segments).get(base_offset, 0)
            size = path.stat().st_size
            path.write_bytes(path.read_bytes()[:vouched] + os.urandom(size - vouched))
    with Log.open(str(tmp_path), config, vouched=state) as log:
        assert (log.log_start_offset, log.log_end_offset) == (0, kept)
        assert log.read(0, ALL) == batches(0, kept)
        assert log.sync() == state
        assert {path.stem for path in tmp_path.iterdir()} == {
            f"{base:020d}" for base, _ in state.segments
        }
        assert log.last_batch == (batch(kept - 1).header_only() if kept else None)
        log.append(batches(kept, kept + 8))
        assert log.read(0, ALL) == batches(0, kept + 8)
    assert_goes_on(tmp_path, kept + 8)


@pytest.mark.parametrize("base_offset", [0, 5, 10])
@pytest.mark.parametrize("left", [None, 0, 1, 399])
def test_a_vouched_segment_that_is_shorter_or_missing_is_damage_and_nothing_is_cut(
    tmp_path: Path, base_offset: int, left: int | None
) -> None:
    state = written(tmp_path, 12)
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(12, 20))
    if left is None:
        store(tmp_path, base_offset).unlink()
    else:
        os.truncate(store(tmp_path, base_offset), left)
    before = contents(tmp_path)
    with pytest.raises(Damaged) as damaged:
        Log.open(str(tmp_path), SMALL, vouched=state)
    assert damaged.value.path == str(store(tmp_path, base_offset))
    assert damaged.value.position == (left or 0)
    assert contents(tmp_path) == before


def test_rot_in_the_newest_vouched_bytes_is_damage_at_open(tmp_path: Path) -> None:
    state = written(tmp_path, 3)
    data = bytearray(store(tmp_path, 0).read_bytes())
    data[-1] ^= 1
    store(tmp_path, 0).write_bytes(data)
    with pytest.raises(Damaged) as damaged:
        Log.open(str(tmp_path), SMALL, vouched=state)
    assert damaged.value.position == 2 * SIZE
    assert store(tmp_path, 0).read_bytes() == data


@pytest.mark.parametrize("step", ["trimmed", "checkpoint saved", "half removed", "removed"])
def test_a_crash_at_any_step_of_a_trim_loses_nothing_that_is_kept(
    tmp_path: Path, step: str
) -> None:
    checkpoint = written(tmp_path, 22)
    assert len(checkpoint.segments) == 5
    log = Log.open(str(tmp_path), SMALL, vouched=checkpoint)
    log.trim(12)
    if step != "trimmed":
        checkpoint = log.sync()
    if step == "removed":
        log.remove_trimmed()
    log.close()
    if step == "half removed":
        store(tmp_path, 0).unlink()
    with Log.open(str(tmp_path), SMALL, vouched=checkpoint) as log:
        start = 0 if step == "trimmed" else 12
        assert (log.log_start_offset, log.log_end_offset) == (start, 22)
        assert log.read(start, ALL) == batches(start, 22)
        log.trim(12)
        state = log.sync()
        log.remove_trimmed()
    assert state == LogState(12, 22, ((10, 1000), (15, 1000), (20, 400)))
    assert [int(name[:20]) for name in sorted(contents(tmp_path))] == [10, 15, 20]


def test_a_checkpoint_from_before_a_trim_needs_the_files_it_lists(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, 12)
    with Log.open(str(tmp_path), SMALL, vouched=checkpoint) as log:
        log.trim(10)
        log.remove_trimmed()
    with pytest.raises(Damaged, match="missing"):
        Log.open(str(tmp_path), SMALL, vouched=checkpoint)


def test_a_vouched_log_may_begin_anywhere(tmp_path: Path) -> None:
    state = written(tmp_path, 12)
    later = LogState(7, state.log_end_offset, state.segments[1:])
    with Log.open(str(tmp_path), SMALL, vouched=later) as log:
        assert (log.log_start_offset, log.segment_count) == (7, 2)
        assert log.read(7, ALL) == batches(7, 12)
    empty = LogState(40, 40)
    with Log.open(str(tmp_path), SMALL, vouched=empty) as log:
        log.append(batches(40, 42))
        assert log.sync() == LogState(40, 42, ((40, 2 * SIZE),))
