"""Compaction: the newest record of each key stays, where it was, as it was; a crash at any step
leaves the old segments or the new ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.storage import (
    BadCopy,
    Batch,
    CorruptBatch,
    DamagedBatch,
    Log,
    LogConfig,
    LogState,
    Record,
    StoredRecord,
    build_batch,
    encode_records,
    parse_batch,
)
from cute_logger.storage.compacting import Compaction, Run
from cute_logger.storage.compaction import (
    MERGED_BYTES,
    PASSED_BYTES_MIN,
    Rewriter,
    pack_mask,
    unpack_mask,
)
from cute_logger.storage.filesystem import Buffer, OsFileSystem
from cute_logger.storage.newest import NewestOffsets
from cute_logger.storage.verify import Cursor, verify

CONFIG = LogConfig(segment_bytes_max=2000, index_interval_bytes=200)


def record(key: int | None, value: bytes | None = b"v", timestamp: int | None = None) -> Record:
    return Record(value, None if key is None else b"key %d" % key, {}, timestamp)


def fill(log: Log, keys: list[int | None], *, per_batch: int = 2, rolls_each: int = 5) -> None:
    """Append a record per key, some to a batch, some batches to a segment."""
    for number, at in enumerate(range(0, len(keys), per_batch)):
        records = [record(key, b"%d" % (at + n)) for n, key in enumerate(keys[at : at + per_batch])]
        log.append_records(records, timestamp=1000 + number)
        if number % rolls_each == rolls_each - 1:
            log.roll()


def newest(records: list[StoredRecord], below: int) -> list[StoredRecord]:
    """What is to be left of a log that was compacted below an offset."""
    last = {each.key: each.offset for each in records if each.offset < below}
    return [
        each
        for each in records
        if each.key is None or each.offset >= below or last[each.key] == each.offset
    ]


def verify_all(log: Log) -> None:
    at = Cursor()
    while at.offset < log.log_end_offset:
        at, _ = verify(log, at, 300)


def test_the_newest_record_of_each_key_stays_where_it_was(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        before = list(log.records())
        below = log.compact()
        assert below == 90
        assert list(log.records()) == newest(before, below)
        assert log.log_end_offset == 100
        verify_all(log)


def test_records_without_a_key_stay_for_ever(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [None if n % 3 else 1 for n in range(60)])
        kept = [each.offset for each in log.records() if each.key is None]
        log.compact(cleaned_until=log.compact())
        assert [each.offset for each in log.records() if each.key is None] == kept


def test_a_tombstone_goes_only_below_the_offset_that_is_said(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        log.append_records([record(1), record(2)], timestamp=1)
        log.append_records([record(1, None), record(2, None)], timestamp=2)
        log.roll()
        log.append_records([record(3)], timestamp=3)
        below = log.compact(tombstones_below=4)
        assert [each.offset for each in log.records()] == [2, 3, 4], "not in the first pass"
        assert log.compact(cleaned_until=below) == 4
        assert [each.offset for each in log.records()] == [2, 3, 4]
        log.compact(cleaned_until=below, tombstones_below=3)
        assert [each.offset for each in log.records()] == [3, 4]


def test_the_last_segment_is_left_alone(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [1] * 20, rolls_each=100)
        log.roll()
        assert log.compact() == 0
        assert len(list(log.records())) == 20


def test_small_segments_become_one(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, list(range(40)), rolls_each=1)
        assert log.segment_count == 20
        before = list(log.records())
        log.compact()
        assert log.segment_count <= 4
        assert list(log.records()) == before


def test_more_keys_than_there_is_room_for_take_more_calls(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 20 for n in range(80)], per_batch=5)
        before = list(log.records())
        below, calls = 0, 0
        while below < 75:
            after = log.compact(cleaned_until=below, keys_max=3)
            assert after > below
            below, calls = after, calls + 1
        assert calls == 25
        assert list(log.records()) == newest(before, 75)


def test_reads_begin_and_end_anywhere_in_a_hole(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 3 for n in range(100)])
        log.compact()
        left = list(log.records())
        for start in range(101):
            assert list(log.records(start)) == [each for each in left if each.offset >= start]
            batches = log.read(start, 0)
            assert not batches or batches[0].base_offset <= start < batches[0].next_offset


def test_timestamps_stay_what_a_reader_sees(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        log.append_records([record(1), record(2, timestamp=5)], timestamp=10)
        log.append_records([record(1), record(3, timestamp=99)], timestamp=20)
        log.append_records([record(4)], timestamp=30)
        log.roll()
        log.append_records([record(5)], timestamp=40)
        log.compact()
        found = [(each.offset, each.timestamp) for each in log.records()]
        assert found == [(1, 5), (2, 20), (3, 99), (4, 30), (5, 40)]
        assert log.read(0, 0)[0].max_timestamp == 99


def test_a_log_is_opened_again_by_its_files_or_by_a_checkpoint(tmp_path: Path) -> None:
    folder = str(tmp_path / "log")
    with Log.open(folder, CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        log.compact()
        left = list(log.records())
        state = log.sync()
        log.remove_trimmed()
    kept = LogState.from_list(json.loads(json.dumps(state.to_list())))
    assert kept == state
    assert kept.compacted
    for vouched in (state, None):
        with Log.open(folder, CONFIG, vouched=vouched) as log:
            assert list(log.records()) == left
            verify_all(log)
            assert log.compact(cleaned_until=90) == 90


def test_a_checkpoint_from_before_brings_the_old_segments_back(tmp_path: Path) -> None:
    folder = str(tmp_path / "log")
    with Log.open(folder, CONFIG, vouched=LogState()) as log:
        fill(log, [n % 7 for n in range(100)])
        before = list(log.records())
        state = log.sync()
        log.compact()
    with Log.open(folder, CONFIG, vouched=state) as log:
        assert list(log.records()) == before
        assert log.sync() == state
        verify_all(log)


def test_a_new_segment_may_be_compacted_again(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        below = 0
        for _ in range(5):
            fill(log, [n % 11 for n in range(60)])
            before = list(log.records())
            below = log.compact(cleaned_until=below)
            assert list(log.records()) == newest(before, below)
            verify_all(log)
            log.remove_trimmed()
        stores = [name for name in (tmp_path / "log").iterdir() if name.suffix == ".log"]
        assert len(stores) == log.segment_count


def test_the_seam_tells_another_history(tmp_path: Path) -> None:
    """What follows a compacted segment carries the digest of a batch that is gone."""
    folder = tmp_path / "log"
    with Log.open(str(folder), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        log.compact()
        state = log.sync()
        log.remove_trimmed()
    first, *others = state.compacted
    for wrong in (first._replace(bridge=bytes(16)), first._replace(digest=bytes(16))):
        other = LogState(
            state.log_start_offset, state.log_end_offset, state.segments, (wrong, *others)
        )
        with (
            Log.open(str(folder), CONFIG, vouched=other) as log,
            pytest.raises(DamagedBatch, match=r"history|compaction"),
        ):
            verify_all(log)


def test_a_compacted_segment_is_mended_with_its_own_bytes_only(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    with Log.open(str(folder), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        old = log.read(0, 10**6)
        log.compact()
        state = log.sync()
        log.remove_trimmed()
        good = log.read(0, 10**6)
    (store,) = (path for path in folder.glob("0*-1.log") if path.name.startswith("0" * 20))
    size = state.segments[0][1]
    store.write_bytes(bytes(size))
    with Log.open(str(folder), CONFIG, vouched=state) as log:
        with pytest.raises(BadCopy):
            log.mend(0, b"".join(batch.data for batch in old))
        log.mend(0, b"".join(batch.data for batch in good))
        assert log.read(0, 10**6) == good
        verify_all(log)


def test_a_damaged_batch_is_not_rewritten_into_a_good_one(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        store = next(iter(sorted((tmp_path / "log").glob("*.log"))))
        data = bytearray(store.read_bytes())
        data[300] ^= 1
        store.write_bytes(data)
        with pytest.raises(DamagedBatch):
            log.compact()
        assert not list((tmp_path / "log").glob("*.new"))


def test_a_trim_below_a_run_being_made_ends_it(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        compaction = Compaction(log, Run.of(log.sealed_segments()[:3]))
        compaction.step(100, lambda batch: b"\1" * batch.count)
        log.trim(50)
        with pytest.raises(Exception, match="outside"):
            compaction.step(100, lambda batch: b"\1" * batch.count)
        compaction.abandon()
        assert not list((tmp_path / "log").glob("*.new"))


def test_segments_that_a_compaction_needs_outlive_a_trim(tmp_path: Path) -> None:
    with Log.open(str(tmp_path / "log"), CONFIG) as log:
        fill(log, [n % 7 for n in range(100)])
        log.keeps_trimmed = True
        log.trim(50)
        log.append_records([record(1)], timestamp=9999)
        assert (log.log_start_offset, log.first_offset) == (50, 0)
        log.keeps_trimmed = False
        log.trim(50)
        assert log.first_offset == 50


# ---- the bytes


def batch_of(records: list[Record], base_offset: int, timestamp: int, chain: bytes) -> Batch:
    own = [timestamp if each.timestamp is None else each.timestamp for each in records]
    return build_batch(
        encode_records(records),
        count=len(records),
        base_offset=base_offset,
        timestamp=timestamp,
        max_timestamp=max([timestamp, *own]),
        term=1,
        index=base_offset + 1,
        chain=chain,
    )


values = st.one_of(
    st.none(),
    st.binary(max_size=10),
    st.sampled_from([bytes(PASSED_BYTES_MIN), bytes(MERGED_BYTES), bytes(MERGED_BYTES - 20)]),
)
records_of_a_batch = st.lists(
    st.builds(
        Record,
        values,
        st.none() | st.binary(max_size=4),
        st.just({}) | st.just({"a": "b"}),
        st.none() | st.integers(0, 50),
    ),
    min_size=1,
    max_size=5,
)


@given(
    st.lists(st.tuples(records_of_a_batch, st.integers(0, 50)), min_size=1, max_size=8),
    st.binary(min_size=40, max_size=40),
    st.binary(min_size=40, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_rewriting_keeps_what_the_mask_says(
    shapes: list[tuple[list[Record], int]], first: bytes, second: bytes
) -> None:
    """Twice, since what was rewritten once may be rewritten again."""
    chain, offset, batches = b"c" * 16, 7, list[Batch]()
    for records, timestamp in shapes:
        batches.append(batch_of(records, offset, timestamp, chain))
        chain, offset = batches[-1].digest(), batches[-1].next_offset
    for drawn in (first, second):
        before = [record for batch in batches for record in batch.records()]
        mask = bytes(byte & 1 for byte in drawn[: len(before)])
        batches = rewritten(batches, mask)
        after = [record for batch in batches for record in batch.records()]
        assert after == [each for each, is_kept in zip(before, mask, strict=True) if is_kept]
        due, chain = 7, b"c" * 16
        for batch in batches:
            assert (batch.base_offset, batch.chain) == (due, chain)
            assert parse_batch(batch.data) == batch
            assert batch.max_timestamp >= max([r.timestamp for r in batch.records()], default=0)
            due, chain = batch.next_offset, batch.digest()
        assert due == offset


def rewritten(batches: list[Batch], mask: bytes) -> list[Batch]:
    rewriter, at, out = Rewriter(batches[0].base_offset, batches[0].chain), 0, list[Batch]()
    for batch in batches:
        out += rewriter.add(batch, mask[at : at + batch.count])
        at += batch.count
    return [*out, *rewriter.finish()]


def test_a_batch_whose_records_are_elsewhere_than_it_says_is_corrupt() -> None:
    first = batch_of([record(n) for n in range(3)], 0, 5, bytes(16))
    (sparse,) = rewritten([first], b"\0\1\1")
    assert (sparse.count, sparse.span) == (2, 3)
    swapped = build_batch(
        bytes(sparse.body).replace(b"\xc0\xc0\x02", b"\xc0\xc0\x03"),
        count=2,
        span=3,
        base_offset=0,
        timestamp=5,
        max_timestamp=5,
    )
    with pytest.raises(CorruptBatch, match="offset 3 of 3"):
        swapped.records()


def test_a_mask_is_of_ones_and_zeros_and_not_endless() -> None:
    assert unpack_mask(pack_mask(b"\0\1\1")) == b"\0\1\1"
    for wrong in (b"", b"nonsense", pack_mask(b"\2"), pack_mask(bytes(5_000_000))):
        with pytest.raises(ValueError, match="no mask"):
            unpack_mask(wrong)


def test_keys_of_any_length_are_told_apart() -> None:
    long = bytes(100)
    keys = [long, long + b"\0", bytes(32), bytes(33), bytes(40), b""]
    found = NewestOffsets(0, 100)
    batch = batch_of([Record(b"", key) for key in keys * 2], 0, 1, bytes(16))
    assert found.add(batch)
    assert len(found) == len(keys)
    assert found.mask(batch, 0) == b"\0" * len(keys) + b"\1" * len(keys)


# ---- crashes


class Stopped(Exception):
    """The process is no more."""


class CountingFiles(OsFileSystem):
    """Counts what changes the disk, and stops before a step."""

    def __init__(self, steps_max: int) -> None:
        self.steps_left = steps_max

    def step(self) -> None:
        if self.steps_left == 0:
            raise Stopped
        self.steps_left -= 1

    def open(self, path: str, *, create: bool = False):  # type: ignore[no-untyped-def]
        if create:
            self.step()
        return CountingFile(self, super().open(path, create=create))

    def rename(self, source: str, target: str) -> None:
        self.step()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self.step()
        super().remove(path)

    def sync_folder(self, path: str) -> None:
        self.step()
        super().sync_folder(path)


class CountingFile:
    def __init__(self, files: CountingFiles, file) -> None:  # type: ignore[no-untyped-def]
        self._files, self._file = files, file
        self.size, self.read_at, self.map, self.close = (
            file.size,
            file.read_at,
            file.map,
            file.close,
        )

    def write_at(self, position: int, buffers: list[Buffer]) -> None:
        data = b"".join(buffers)
        self._stepped(lambda: self._file.write_at(position, [data[: len(data) // 2]]))
        self._stepped(lambda: self._file.write_at(position, [data]))

    def truncate(self, size: int) -> None:
        self._stepped(lambda: self._file.truncate(size))

    def sync(self) -> None:
        self._stepped(self._file.sync)

    def _stepped(self, change: Callable[[], None]) -> None:
        self._files.step()
        change()


@pytest.mark.parametrize("is_vouched", [True, False])
def test_a_compaction_that_ends_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, is_vouched: bool
) -> None:
    steps, ended = 0, False
    outcomes = set()
    while not ended:
        folder = str(tmp_path / f"log {steps}")
        with Log.open(folder, CONFIG, vouched=LogState() if is_vouched else None) as log:
            fill(log, [n % 5 for n in range(40)], rolls_each=3)
            state = log.sync()
            before = list(log.records())
        files = CountingFiles(10**9)
        with Log.open(folder, CONFIG, files=files, vouched=state if is_vouched else None) as log:
            files.steps_left = steps
            try:
                log.compact()
                if is_vouched:
                    state = log.sync()
                log.remove_trimmed()
                ended = True
            except Stopped:
                pass
            files.steps_left = 10**9
        with Log.open(folder, CONFIG, vouched=state if is_vouched else None) as log:
            left = list(log.records())
            assert left in (before, newest(before, 36))
            outcomes.add(len(left))
            verify_all(log)
            log.append_records([record(1)], timestamp=9999)
            log.compact()
            assert newest(list(log.records()), 36) == list(log.records())
        steps += 1
    assert len(outcomes) == 2
    assert steps > 15
