"""A log gives back what was appended, across segments, and promises nothing it did not sync."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cute_logger.storage import (
    Batch,
    Damaged,
    Log,
    LogConfig,
    LogState,
    OffsetOutOfRange,
    Poisoned,
    Record,
    build_batch,
)
from cute_logger.storage.filesystem import OS_FILES, Buffer, File, OsFileSystem
from cute_logger.storage.idle_segments import IdleSegments
from cute_logger.storage.store import SYNC_BYTES

SMALL = LogConfig(segment_bytes_max=1000, index_interval_bytes=200)
ALL = 10**9


def batch(offset: int, body_size: int = 104, count: int = 1) -> Batch:
    """Return a batch of 200 bytes, unless told otherwise."""
    return build_batch(
        bytes(body_size), count=count, base_offset=offset, timestamp=offset, max_timestamp=offset
    )


def batches(start: int, end: int) -> list[Batch]:
    return [batch(offset) for offset in range(start, end)]


def stores(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.log"))


class WatchedDisk(OsFileSystem):
    """The real disk, with a list of what was synced, a count of what was read, and a limit."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.opened = 0
        self.reads = 0
        self.bytes_read = 0
        self.bytes_free = 10**12
        self.sync_fails = False

    def open(self, path: str, *, create: bool = False) -> File:
        self.opened += 1
        return WatchedFile(self, path, super().open(path, create=create))

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        self.synced.append(os.path.basename(path))

    def synced_names(self) -> list[str]:
        names, self.synced = self.synced, []
        return names


class WatchedFile:
    def __init__(self, disk: WatchedDisk, path: str, file: File) -> None:
        self._disk = disk
        self._name = os.path.basename(path)
        self._file = file
        self.size = file.size
        self.truncate = file.truncate
        self.map = file.map
        self.close = file.close

    def read_at(self, position: int, length: int) -> bytes:
        data = self._file.read_at(position, length)
        self._disk.reads += 1
        self._disk.bytes_read += len(data)
        return data

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self._file.write_at(position, [data[: self._disk.bytes_free]])
        if len(data) > self._disk.bytes_free:
            raise OSError(errno.ENOSPC, "no space left")
        self._disk.bytes_free -= len(data)

    def sync(self) -> None:
        if self._disk.sync_fails:
            raise OSError(errno.EIO, "the disk is gone")
        self._file.sync()
        self._disk.synced.append(self._name)


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    with Log.open(f"{tmp_path}/log") as log:
        assert (log.log_start_offset, log.log_end_offset) == (0, 0)
        assert (log.size_bytes, log.segment_count, log.last_batch) == (0, 0, None)
        assert log.read(0, ALL) == []
        assert log.sync() == LogState()


def test_a_batch_comes_back_whole_for_each_of_its_offsets(tmp_path: Path) -> None:
    with Log.open(str(tmp_path)) as log:
        log.append([batch(0, count=3), batch(3)])
        assert log.log_end_offset == 4
        for offset in (0, 1, 2):
            assert log.read(offset, 1) == [batch(0, count=3)]
        assert log.read(3, 1) == [batch(3)]
        assert log.read(4, 1) == []


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_batch_for_another_offset_is_refused_and_nothing_written(
    tmp_path: Path, offset: int
) -> None:
    with Log.open(str(tmp_path)) as log:
        log.append([batch(0)])
        with pytest.raises(ValueError, match="3 is due"):
            log.append([batch(1), batch(2), batch(offset)])
        assert log.log_end_offset == 1
        log.append([batch(1)])


def test_offsets_outside_are_refused(tmp_path: Path) -> None:
    with Log.open(str(tmp_path)) as log:
        log.append(batches(0, 2))
        for offset in (-1, 3):
            with pytest.raises(OffsetOutOfRange) as refused:
                log.read(offset, ALL)
            facts = refused.value
            assert (facts.offset, facts.log_start_offset, facts.log_end_offset) == (offset, 0, 2)


def test_a_segment_is_sealed_before_it_would_pass_its_limit(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 5))
        assert log.segment_count == 1
        log.append(batches(5, 12))
        assert log.segment_count == 3
        assert log.size_bytes == 12 * 200
    assert stores(tmp_path) == [f"{base:020d}.log" for base in (0, 5, 10)]


def test_a_batch_beyond_the_limit_gets_a_segment_of_its_own(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append([batch(0), batch(1, body_size=5000), batch(2)])
        assert stores(tmp_path) == [f"{base:020d}.log" for base in (0, 1, 2)]
        assert log.read(0, ALL) == [batch(0), batch(1, body_size=5000), batch(2)]


def test_the_limit_can_change(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.set_segment_bytes_max(400)
        log.append(batches(0, 4))
        assert log.segment_count == 2
        log.set_segment_bytes_max(10**6)
        log.append(batches(4, 100))
        assert log.segment_count == 2
        for refused in (0, 2**32):
            with pytest.raises(ValueError, match="segment_bytes_max"):
                log.set_segment_bytes_max(refused)


def test_an_offset_too_far_for_the_index_begins_a_segment(tmp_path: Path) -> None:
    far = 2**32 - 1
    with Log.open(str(tmp_path), SMALL) as log:
        log.append([batch(0, count=far), batch(far), batch(far + 1)])
        assert stores(tmp_path) == [f"{base:020d}.log" for base in (0, far + 1)]
        assert log.read(far, 1) == [batch(far)]


def test_a_roll_begins_a_segment_with_the_next_batch(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.roll()
        log.append(batches(0, 2))
        log.roll()
        log.roll()
        assert log.segment_count == 1
        assert log.read(0, ALL) == batches(0, 2)
        log.append(batches(2, 3))
        assert log.sync().segments == ((0, 400), (2, 200))
        assert log.read(0, ALL) == batches(0, 3)


def test_a_roll_with_nothing_behind_it_is_forgotten(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 2))
        log.roll()
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(2, 3))
        assert log.sync().segments == ((0, 600),)


@pytest.mark.parametrize(
    ("before", "bases"),
    [(0, [0, 5, 10]), (4, [0, 5, 10]), (5, [5, 10]), (9, [5, 10]), (10, [10]), (12, [10])],
)
def test_a_trim_moves_the_start_and_drops_whole_sealed_segments(
    tmp_path: Path, before: int, bases: list[int]
) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 12))
        log.trim(before)
        assert (log.log_start_offset, log.log_end_offset) == (before, 12)
        assert log.segment_count == len(bases)
        assert log.size_bytes == (12 - bases[0]) * 200
        assert log.read(before, ALL) == batches(before, 12)
        with pytest.raises(OffsetOutOfRange):
            log.read(before - 1, ALL)
        assert len(stores(tmp_path)) == 3
        state = log.sync()
        assert state.log_start_offset == before
        assert [base for base, _ in state.segments] == bases
        log.remove_trimmed()
        assert stores(tmp_path) == [f"{base:020d}.log" for base in bases]
        assert {path.stem for path in tmp_path.glob("*.index")} <= {f"{b:020d}" for b in bases}
    with Log.open(str(tmp_path), SMALL, vouched=state) as log:
        assert (log.log_start_offset, log.log_end_offset) == (before, 12)
        assert log.read(before, ALL) == batches(before, 12)


def test_a_trim_never_goes_back_and_never_beyond_the_end(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 12))
        log.trim(7)
        log.trim(3)
        assert log.log_start_offset == 7
        with pytest.raises(OffsetOutOfRange):
            log.trim(13)
        assert log.log_start_offset == 7


def test_a_log_trimmed_to_its_end_goes_on_there(tmp_path: Path) -> None:
    for is_rolled in (False, True):
        folder = tmp_path / str(is_rolled)
        with Log.open(str(folder), SMALL) as log:
            log.append(batches(0, 12))
            if is_rolled:
                log.roll()
            log.trim(12)
            assert log.read(12, ALL) == []
            state = log.sync()
            log.remove_trimmed()
        with Log.open(str(folder), SMALL) as log:
            assert (log.log_start_offset, log.log_end_offset) == (10, 12)
            assert log.last_digest == batch(11).digest()
        with Log.open(str(folder), SMALL, vouched=state) as log:
            assert (log.log_start_offset, log.log_end_offset) == (12, 12)
            log.append(batches(12, 14))
            assert log.read(12, ALL) == batches(12, 14)


def test_a_segment_trimmed_while_it_was_active_is_dropped_once_it_is_sealed(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 3))
        log.trim(3)
        assert log.segment_count == 1
        log.roll()
        log.append(batches(3, 4))
        assert (log.segment_count, log.size_bytes) == (1, 200)
        log.remove_trimmed()
    assert stores(tmp_path) == [f"{3:020d}.log"]


def test_trimmed_segments_leave_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Log.open(str(tmp_path), SMALL, vouched=LogState()) as log:
        log.append(batches(0, 40))
        for offset in range(0, 40, 5):
            log.read(offset, 1)
        log.trim(40)
        assert len(os.listdir("/proc/self/fd")) - before <= 4


def test_reads_go_across_segments(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 33))
        for start in range(33):
            assert log.read(start, ALL) == batches(start, 33)
            for bytes_max in (0, 1, 199):
                assert log.read(start, bytes_max) == batches(start, start + 1)
            for count in (1, 2, 7, 20):
                end = min(start + count, 33)
                assert log.read(start, count * 200) == batches(start, end)
                assert log.read(start, count * 200 + 199) == batches(start, end)


def test_a_closed_log_opens_as_it_was(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 12))
    with Log.open(str(tmp_path), SMALL) as log:
        assert (log.log_start_offset, log.log_end_offset) == (0, 12)
        assert (log.size_bytes, log.segment_count) == (2400, 3)
        assert log.last_batch == batch(11).header_only()
        assert log.last_digest == batch(11).digest()
        assert log.read(0, ALL) == batches(0, 12)
        log.append(batches(12, 14))
        assert log.read(10, ALL) == batches(10, 14)


def test_appended_records_are_read_and_chained(tmp_path: Path) -> None:
    first = [Record(b"a", timestamp=70), Record(None, b"k", {"h": "x"})]
    with Log.open(str(tmp_path)) as log:
        one = log.append_records(first, timestamp=50)
        two = log.append_records([Record(b"b", timestamp=20)], timestamp=60)
    with Log.open(str(tmp_path)) as log:
        three = log.append_records([Record(b"c")], timestamp=70)
        found = log.read(0, ALL)
    assert found == [one, two, three]
    assert [stored.value for batch in found for stored in batch.records()] == [
        b"a",
        None,
        b"b",
        b"c",
    ]
    assert [(b.timestamp, b.max_timestamp) for b in found] == [(50, 70), (60, 20), (70, 70)]
    assert [b.chain for b in found] == [bytes(16), one.digest(), two.digest()]


def test_sync_makes_files_and_their_names_durable_once(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with Log.open(f"{tmp_path}/log", SMALL, files=disk, vouched=LogState()) as log:
        log.append(batches(0, 12))
        sealed, last = f"{0:020d}", f"{10:020d}"
        assert f"{sealed}.log" not in disk.synced_names()
        state = log.sync()
        assert state == LogState(0, 12, ((0, 1000), (5, 1000), (10, 400)))
        synced = disk.synced_names()
        assert synced[:3] == [f"{base:020d}.log" for base in (0, 5, 10)]
        assert synced[3:] == [tmp_path.name, "log"]
        assert log.sync() == state
        assert disk.synced_names() == []
        log.append(batches(12, 13))
        log.sync()
        assert disk.synced_names() == [f"{last}.log"]


def test_a_log_without_a_checkpoint_syncs_a_segment_before_the_next_one(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with Log.open(f"{tmp_path}/log", SMALL, files=disk) as log:
        log.append(batches(0, 5))
        assert disk.synced_names() == []
        log.append(batches(5, 6))
        assert {f"{0:020d}.log", "log"} <= set(disk.synced_names())
        assert f"{5:020d}.log" not in disk.synced


def test_what_waits_for_a_sync_is_never_much(tmp_path: Path) -> None:
    disk = WatchedDisk()
    half = SYNC_BYTES // 2
    with Log.open(f"{tmp_path}/log", files=disk, vouched=LogState()) as log:
        log.append([batch(0, half)])
        assert disk.synced_names() == []
        log.append([batch(1, half)])
        assert disk.synced_names() == [f"{0:020d}.log"]
        log.append([batch(2, half)])
        assert disk.synced_names() == []


def test_a_reopened_log_syncs_what_an_earlier_process_left_in_the_cache(tmp_path: Path) -> None:
    Log.open(f"{tmp_path}/log").append(batches(0, 3))
    disk = WatchedDisk()
    with Log.open(f"{tmp_path}/log", files=disk) as log:
        log.sync()
    assert disk.synced_names() == [f"{0:020d}.log", tmp_path.name, "log"]


def test_a_checkpointed_log_keeps_few_files_open_however_many_it_fills(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Log.open(str(tmp_path), SMALL, vouched=LogState(), idle=IdleSegments(4)) as log:
        log.append(batches(0, 500))
        log.sync()
        for offset in range(500):
            assert log.read(offset, 1) == [batch(offset)]
        assert len(os.listdir("/proc/self/fd")) - before < 40
    assert len(os.listdir("/proc/self/fd")) == before


def test_logs_that_share_what_stays_open_keep_no_more_than_one_alone(tmp_path: Path) -> None:
    idle = IdleSegments(5)
    with (
        Log.open(f"{tmp_path}/a", SMALL, idle=idle) as first,
        Log.open(f"{tmp_path}/b", SMALL, idle=idle) as second,
    ):
        for log in (first, second):
            log.append(batches(0, 60))
        for offset in range(60):
            assert first.read(offset, 1) == second.read(offset, 1) == [batch(offset)]
            assert len(idle) <= 5
        first.close()
        assert 0 < len(idle) <= 5
        assert second.read(0, 1) == [batch(0)]
    assert len(idle) == 0


def test_a_segment_that_was_read_is_not_opened_again(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with Log.open(str(tmp_path), SMALL, files=disk) as log:
        log.append(batches(0, 60))
        log.read(0, 1)
        log.read(20, 1)
        opened = disk.opened
        for _ in range(3):
            assert log.read(0, 1) == [batch(0)]
            assert log.read(20, 1) == [batch(20)]
        assert disk.opened == opened


def test_a_large_batch_is_read_in_one_go(tmp_path: Path) -> None:
    disk = WatchedDisk()
    large = [batch(offset, body_size=50_000) for offset in range(10)]
    with Log.open(str(tmp_path), files=disk) as log:
        log.append(large)
        disk.reads = disk.bytes_read = 0
        for offset in range(9):
            assert log.read(offset, 1) == [large[offset]]
        assert (disk.reads, disk.bytes_read) == (9, sum(each.size for each in large[:9]))


def test_a_state_survives_being_packed() -> None:
    state = LogState(3, 12, ((0, 1000), (5, 400)))
    assert state.to_list() == [3, 12, [[0, 1000], [5, 400]]]
    assert LogState.from_list(state.to_list()) == state
    for wrong in ([], [1, 2], [1, 2, 3], [1, "2", []], [1, 2, [[3]]]):
        with pytest.raises(ValueError):  # noqa: PT011 - any
            LogState.from_list(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bytes_free", [0, 1, 150, 200, 350, 450, 1000])
def test_a_failed_write_poisons_the_log_and_opening_it_recovers(
    tmp_path: Path, bytes_free: int
) -> None:
    disk = WatchedDisk()
    log = Log.open(str(tmp_path), SMALL, files=disk)
    log.append(batches(0, 4))
    disk.bytes_free = bytes_free
    with pytest.raises(OSError, match="no space"):
        log.append(batches(4, 10))
    disk.bytes_free = 10**12
    for call in (lambda: log.append([batch(4)]), lambda: log.read(0, 1), log.sync):
        with pytest.raises(Poisoned) as poisoned:
            call()
        assert isinstance(poisoned.value.cause, OSError)
    log.close()
    with Log.open(str(tmp_path), SMALL) as log:
        assert 4 <= log.log_end_offset < 10
        assert log.read(0, ALL) == batches(0, log.log_end_offset)


def test_a_failed_sync_poisons_the_log(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with Log.open(str(tmp_path), files=disk) as log:
        log.append([batch(0)])
        disk.sync_fails = True
        with pytest.raises(OSError, match="gone"):
            log.sync()
        disk.sync_fails = False
        with pytest.raises(Poisoned):
            log.sync()


def test_opening_a_log_of_many_segments_reads_only_its_end(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 3000))
        state = log.sync()
        assert log.segment_count == 600
    for vouched in (None, state):
        disk = WatchedDisk()
        with Log.open(str(tmp_path), SMALL, files=disk, vouched=vouched) as log:
            assert log.log_end_offset == 3000
            assert disk.bytes_read <= 1000
            assert log.sync() == state


def test_a_read_takes_little_more_from_the_disk_than_it_returns(tmp_path: Path) -> None:
    disk = WatchedDisk()
    with Log.open(str(tmp_path), files=disk) as log:
        log.append(batches(0, 3000))
        disk.bytes_read = 0
        assert log.read(1500, 1000) == batches(1500, 1505)
        assert disk.bytes_read <= 1000 + 4096
        disk.bytes_read = 0
        log.append([batch(3000, body_size=10**6), *batches(3001, 3030)])
        assert log.read(3000, 10) == [batch(3000, body_size=10**6)]
        assert disk.bytes_read <= 10**6 + 3 * 4096


def test_rot_in_a_sealed_segment_is_damage_when_it_is_read(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 12))
    path = tmp_path / stores(tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[450] ^= 1
    path.write_bytes(data)
    with Log.open(str(tmp_path), SMALL) as log:
        assert log.read(0, 1000) == batches(0, 5)
        assert log.read(10, ALL) == batches(10, 12)
        with pytest.raises(Damaged) as damaged:
            log.read(7, ALL)
        assert (damaged.value.path, damaged.value.position) == (str(path), 400)


def test_a_missing_sealed_segment_is_damage_when_it_is_read(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), SMALL) as log:
        log.append(batches(0, 12))
    (tmp_path / stores(tmp_path)[1]).unlink()
    with Log.open(str(tmp_path), SMALL) as log:
        assert log.read(10, ALL) == batches(10, 12)
        with pytest.raises(Damaged, match="ends where offset 5 is due"):
            log.read(6, ALL)


class LogAgainstList(RuleBasedStateMachine):
    """The log behaves as a list of batches does, whatever is done in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: list[Batch] = []
        self.start = 0
        self.log = Log.open(str(self.folder), SMALL)

    def teardown(self) -> None:
        self.log.close()
        OS_FILES.remove_folder(str(self.folder))

    @property
    def end(self) -> int:
        return self.model[-1].next_offset if self.model else 0

    @rule(shapes=st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 4)), max_size=8))
    def append(self, shapes: list[tuple[int, int]]) -> None:
        new: list[Batch] = []
        offset = self.end
        for body_size, count in shapes:
            new.append(batch(offset, body_size, count))
            offset = new[-1].next_offset
        self.log.append(new)
        self.model += new

    @rule(share=st.floats(0, 1), bytes_max=st.integers(0, 5000))
    def read(self, share: float, bytes_max: int) -> None:
        offset = self.start + int(share * (self.end - self.start))
        wanted = [b for b in self.model if b.next_offset > offset]
        fitting: list[Batch] = []
        for candidate in wanted:
            if fitting and sum(b.size for b in fitting) + candidate.size > bytes_max:
                break
            fitting.append(candidate)
        assert self.log.read(offset, bytes_max) == fitting

    @rule(segment_bytes_max=st.integers(1, 3000))
    def change_limit(self, segment_bytes_max: int) -> None:
        self.log.set_segment_bytes_max(segment_bytes_max)

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule(share=st.floats(-0.2, 1))
    def trim(self, share: float) -> None:
        before = self.start + int(share * (self.end - self.start))
        self.log.trim(before)
        self.start = max(self.start, before)

    @rule(is_vouched=st.booleans(), index=st.sampled_from(["kept", "lost", "garbled"]))
    def reopen(self, is_vouched: bool, index: str) -> None:
        state = self.log.sync()
        if not is_vouched:
            self.log.remove_trimmed()
            self.start = state.segments[0][0] if state.segments else 0
        self.log.close()
        for path in self.folder.glob("*.index"):
            if index == "lost":
                path.unlink()
            elif index == "garbled":
                path.write_bytes(b"\x01" * (path.stat().st_size + 8))
        self.log = Log.open(str(self.folder), SMALL, vouched=state if is_vouched else None)

    @precondition(lambda self: self.model)
    @rule(more=st.integers(1, 6))
    def go_back_to_a_checkpoint(self, more: int) -> None:
        state = self.log.sync()
        self.log.remove_trimmed()
        self.log.append(batches(self.end, self.end + more))
        self.log.trim(self.end + more)
        self.log.close()
        self.log = Log.open(str(self.folder), SMALL, vouched=state)

    @invariant()
    def ends_where_the_list_ends(self) -> None:
        assert (self.log.log_start_offset, self.log.log_end_offset) == (self.start, self.end)
        last = self.model[-1].header_only() if self.model else None
        assert self.log.last_batch == last

    @invariant()
    def keeps_every_segment_that_holds_something_readable_and_one(self) -> None:
        extents = self.log.sync().segments
        bases = [base for base, _ in extents] or [0]
        kept = [b.size for b in self.model if b.base_offset >= bases[0]]
        assert self.log.size_bytes == sum(size for _, size in extents) == sum(kept)
        assert bases[0] <= self.start
        assert len(bases) == 1 or self.start < bases[1]


LogAgainstList.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_a_log_behaves_as_a_list_of_batches = LogAgainstList.TestCase
