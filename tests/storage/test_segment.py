"""A segment reads the same whatever became of its index, and never returns a wrong byte."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cute_logger.storage.batch import Batch, build_batch
from cute_logger.storage.errors import Damaged
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.names import SegmentName
from cute_logger.storage.segment import Segment

BASE = 1000
INTERVAL = 400
COUNT = 200


def batch(offset: int, body_size: int = 20, count: int = 1) -> Batch:
    return build_batch(
        bytes(body_size), count=count, base_offset=offset, timestamp=0, max_timestamp=0
    )


def written_batches() -> list[Batch]:
    sizes = random.Random(7)
    batches = []
    offset = BASE
    for _ in range(COUNT):
        batches.append(batch(offset, sizes.choice([0, 10, 300, 2000]), sizes.randint(1, 5)))
        offset = batches[-1].next_offset
    return batches


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return written_batches()


@pytest.fixture
def folder(tmp_path: Path, batches: list[Batch]) -> Path:
    """A folder with one closed segment of all batches."""
    segment = Segment.create(OS_FILES, str(tmp_path), BASE, INTERVAL)
    segment.append(batches[:50])
    segment.append(batches[50:])
    segment.close()
    return tmp_path


def store_of(folder: Path) -> Path:
    return folder / "00000000000000001000.log"


def index_of(folder: Path) -> Path:
    return folder / "00000000000000001000.index"


def opened(folder: Path, batches: list[Batch]) -> Segment:
    return Segment.open(
        OS_FILES, str(folder), SegmentName(BASE), INTERVAL, next_offset=batches[-1].next_offset
    )


def assert_reads_all(segment: Segment, batches: list[Batch]) -> None:
    for wanted in batches:
        for offset in range(wanted.base_offset, wanted.next_offset):
            assert segment.read(offset, 1, at_least_one=True) == [wanted]


def test_every_offset_is_found(folder: Path, batches: list[Batch]) -> None:
    segment = opened(folder, batches)
    assert_reads_all(segment, batches)
    assert segment.size == store_of(folder).stat().st_size == sum(b.size for b in batches)
    segment.close()


def test_an_active_segment_reads_what_was_just_appended(tmp_path: Path) -> None:
    segment = Segment.create(OS_FILES, str(tmp_path), BASE, INTERVAL)
    for number in range(100):
        segment.append([batch(BASE + number)])
        [found] = segment.read(BASE + number, 1, at_least_one=True)
        assert found == batch(BASE + number)
    segment.close()


def test_a_read_takes_what_fits_and_one_at_least(folder: Path, batches: list[Batch]) -> None:
    segment = opened(folder, batches)
    for bytes_max in (-1, 0, 1, 500, 5000, 10**9):
        for start in (0, 1, 77, COUNT - 1):
            found = segment.read(batches[start].base_offset, bytes_max, at_least_one=True)
            assert found == batches[start : start + len(found)]
            assert len(found) == 1 or sum(b.size for b in found) <= bytes_max
            following = batches[start + len(found) :]
            assert not following or sum(b.size for b in [*found, following[0]]) > bytes_max
    segment.close()


def test_a_read_that_must_not_pass_its_limit_may_be_empty(
    folder: Path, batches: list[Batch]
) -> None:
    segment = opened(folder, batches)
    size = batches[0].size
    assert segment.read(BASE, size - 1, at_least_one=False) == []
    assert segment.read(BASE, size, at_least_one=False) == batches[:1]
    segment.close()


def test_the_end_is_known_without_reading_the_rest(folder: Path, batches: list[Batch]) -> None:
    with store_of(folder).open("r+b") as file:
        file.write(bytes(100))
    segment = opened(folder, batches)
    assert segment.next_offset == batches[-1].next_offset
    assert segment.last is not None
    assert segment.last.base_offset == batches[-1].base_offset
    assert segment.last_digest == batches[-1].digest()
    segment.close()


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 16 * 8]


def shift_positions(data: bytes) -> bytes:
    """Return entries that ascend as they should and are all wrong."""
    words = [int.from_bytes(data[i : i + 8], "little") + 1 for i in range(0, len(data), 8)]
    return b"".join(word.to_bytes(8, "little") for word in words)


def shift_offsets(data: bytes) -> bytes:
    words = [int.from_bytes(data[i : i + 8], "little") + 2**32 for i in range(0, len(data), 8)]
    return b"".join(word.to_bytes(8, "little") for word in words)


def far_away(data: bytes) -> bytes:
    """Return entries that point behind the end of the store, but for the last."""
    words = [int.from_bytes(data[i : i + 8], "little") | 2**31 for i in range(0, len(data) - 8, 8)]
    return b"".join(word.to_bytes(8, "little") for word in words) + data[-8:]


@pytest.mark.parametrize(
    "garble",
    [
        lambda _: b"",
        lambda _: b"no index",
        lambda data: bytes(len(data)),
        lambda data: os.urandom(len(data)),
        lambda data: data + b"x",
        lambda data: data + data,
        lambda data: data + bytes(8000),
        lambda data: data[:-3],
        cut_in_half,
        shift_positions,
        shift_offsets,
        far_away,
        lambda data: shift_positions(data[:-8]) + data[-8:],
        lambda data: shift_offsets(data[:-8]) + data[-8:],
        lambda data: data[8:],
        lambda data: data[:80] + data[160:],
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "random",
        "a byte too long",
        "twice",
        "room left behind",
        "three bytes short",
        "half",
        "wrong positions",
        "wrong offsets",
        "beyond the store",
        "wrong positions but the last",
        "wrong offsets but the last",
        "without the first entry",
        "with a gap",
    ],
)
def test_reads_are_the_same_with_a_bad_index(
    folder: Path, batches: list[Batch], garble: Callable[[bytes], bytes]
) -> None:
    index_of(folder).write_bytes(garble(index_of(folder).read_bytes()))
    segment = opened(folder, batches)
    assert_reads_all(segment, batches)
    segment.close()
    segment = opened(folder, batches)
    assert_reads_all(segment, batches)
    segment.close()


def test_a_missing_index_is_built_as_it_was_and_logged_once(
    folder: Path, batches: list[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    before = index_of(folder).read_bytes()
    index_of(folder).unlink()
    segment = opened(folder, batches)
    assert_reads_all(segment, batches)
    segment.close()
    assert index_of(folder).read_bytes() == before
    assert [record.message for record in caplog.records] == ["offset index rebuilt"]
    opened(folder, batches).close()
    assert len(caplog.records) == 1


def test_a_store_that_is_rotten_anywhere_is_damaged_there_and_good_elsewhere(
    folder: Path, batches: list[Batch]
) -> None:
    position = sum(b.size for b in batches[:120])
    with store_of(folder).open("r+b") as file:
        file.seek(position + 90)
        file.write(b"rot")
    segment = opened(folder, batches)
    indexed = index_of(folder).read_bytes()
    for number, wanted in enumerate(batches):
        if number == 120:
            with pytest.raises(Damaged) as damaged:
                segment.read(wanted.base_offset, 1, at_least_one=True)
            assert (damaged.value.path, damaged.value.position) == (str(store_of(folder)), position)
        elif number < 120 or number > 140:
            assert segment.read(wanted.base_offset, 1, at_least_one=True) == [wanted]
    segment.close()
    assert index_of(folder).read_bytes() == indexed


@pytest.mark.parametrize("change", [-1, 1])
def test_a_segment_that_ends_elsewhere_is_damaged(
    folder: Path, batches: list[Batch], change: int
) -> None:
    with pytest.raises(Damaged, match="is due"):
        Segment.open(
            OS_FILES,
            str(folder),
            SegmentName(BASE),
            INTERVAL,
            next_offset=batches[-1].next_offset + change,
        )


def test_a_segment_with_other_batches_than_its_name_says_is_damaged(
    folder: Path, batches: list[Batch]
) -> None:
    store_of(folder).rename(folder / "00000000000000001001.log")
    with pytest.raises(Damaged, match="is due"):
        Segment.open(
            OS_FILES,
            str(folder),
            SegmentName(BASE + 1),
            INTERVAL,
            next_offset=batches[-1].next_offset,
        )


def test_a_refused_open_leaves_no_file_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Damaged):
            Segment.open(OS_FILES, str(folder), SegmentName(BASE), INTERVAL, next_offset=BASE)
    assert len(os.listdir("/proc/self/fd")) == before
