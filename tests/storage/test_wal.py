from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from cute_logger.storage.errors import Damaged, Poisoned
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.wal import Entry, Wal
from cute_logger.storage.wal_frame import PAYLOAD_BYTES_MAX, frame_size
from cute_logger.storage.wal_segment import list_segments

from .memory_files import MemoryFiles


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "wal")


@pytest.fixture
def wal(folder: str) -> Iterator[Wal]:
    opened = Wal.open(folder)
    yield opened
    opened.close()


def flush(wal: Wal) -> None:
    taken = wal.begin_flush()
    assert taken is not None
    taken.run()
    wal.end_flush(taken)


def append(wal: Wal, count: int, *, term: int = 1, size: int = 10) -> None:
    for _ in range(count):
        index = wal.last_index + 1
        wal.append(index, term, f"{term}/{index}".encode().ljust(size, b"."))


def terms(wal: Wal) -> list[int]:
    return [wal.term_at(index) for index in range(wal.first_index, wal.last_index + 1)]


class TestNew:
    def test_it_is_empty(self, wal: Wal) -> None:
        assert (wal.first_index, wal.last_index, wal.last_term) == (1, 0, 0)
        assert (wal.term, wal.vote) == (0, None)
        assert (wal.lsn, wal.durable_lsn, wal.durable_index, wal.pending_bytes) == (0, 0, 0, 0)
        assert wal.begin_flush() is None
        assert wal.read(1, 1000) == []

    def test_it_begins_behind_what_a_checkpoint_covers(self, folder: str) -> None:
        wal = Wal.open(folder, after=41, after_term=7)
        assert (wal.first_index, wal.last_index, wal.last_term) == (42, 41, 7)
        assert wal.term_at(41) == 7
        wal.append(42, 8, b"the answer")
        assert wal.read(42, 1) == [Entry(b"the answer", 42, 8)]
        wal.close()


class TestAppend:
    def test_an_entry_can_be_read_at_once(self, wal: Wal) -> None:
        append(wal, 3)
        assert wal.read(2, 10_000) == [Entry(b"1/2.......", 2, 1), Entry(b"1/3.......", 3, 1)]
        assert (wal.last_index, wal.lsn, wal.durable_lsn) == (3, 3, 0)

    @pytest.mark.parametrize("index", [0, 1, 2, 4])
    def test_a_gap_or_a_repetition_is_refused(self, wal: Wal, index: int) -> None:
        append(wal, 2)
        with pytest.raises(ValueError, match="does not follow"):
            wal.append(index, 1, b"")

    def test_an_entry_that_recovery_would_not_believe_is_refused(self, wal: Wal) -> None:
        with pytest.raises(ValueError, match="too many"):
            wal.append(1, 1, bytes(PAYLOAD_BYTES_MAX + 1))
        assert (wal.last_index, wal.lsn) == (0, 0)

    def test_what_waits_is_counted_in_frames(self, wal: Wal) -> None:
        append(wal, 2, size=100)
        wal.set_hard_state(3, "node-1")
        wal.truncate(2)
        expected = 2 * frame_size(100) + frame_size(6) + frame_size(0)
        assert wal.pending_bytes == expected
        taken = wal.begin_flush()
        assert taken is not None
        append(wal, 1, size=100)
        taken.run()
        assert wal.pending_bytes == expected + frame_size(100)
        wal.end_flush(taken)
        assert wal.pending_bytes == frame_size(100)


class TestRead:
    def test_it_stops_before_passing_the_size(self, wal: Wal) -> None:
        append(wal, 10, size=100)
        found = wal.read(3, 4 * frame_size(100))
        assert found is not None
        assert [entry.index for entry in found] == [3, 4, 5, 6]
        found = wal.read(3, 4 * frame_size(100) - 1)
        assert found is not None
        assert [entry.index for entry in found] == [3, 4, 5]

    def test_one_entry_comes_however_large(self, wal: Wal) -> None:
        append(wal, 2, size=1000)
        assert wal.read(1, 0) == [Entry(b"1/1".ljust(1000, b"."), 1, 1)]

    def test_it_stops_before_the_end_given(self, wal: Wal) -> None:
        append(wal, 10)
        assert [entry.index for entry in wal.read(3, 10_000, 6) or ()] == [3, 4, 5]
        assert wal.read(6, 10_000, 6) == []

    def test_behind_the_last_entry_there_is_nothing(self, wal: Wal) -> None:
        append(wal, 2)
        assert wal.read(3, 10_000) == []
        assert wal.load(3, 10_000)() == []

    def test_below_the_first_entry_is_refused(self, folder: str) -> None:
        wal = Wal.open(folder, after=10, after_term=1)
        with pytest.raises(ValueError, match="begins at 11"):
            wal.read(10, 1)
        with pytest.raises(ValueError, match="begins at 11"):
            wal.load(10, 1)
        wal.close()


class TestTermAt:
    def test_it_knows_each_entry_and_the_one_before_the_first(self, wal: Wal) -> None:
        append(wal, 2, term=1)
        append(wal, 3, term=4)
        assert wal.term_at(0) == 0
        assert terms(wal) == [1, 1, 4, 4, 4]
        wal.truncate(4)
        append(wal, 1, term=5)
        assert terms(wal) == [1, 1, 4, 5]
        assert wal.last_term == 5

    @pytest.mark.parametrize("index", [-1, 3])
    def test_outside_of_the_log_it_is_refused(self, wal: Wal, index: int) -> None:
        append(wal, 2)
        with pytest.raises(ValueError, match="outside"):
            wal.term_at(index)


class TestTruncate:
    def test_it_drops_the_entry_and_those_behind(self, wal: Wal) -> None:
        append(wal, 5)
        wal.truncate(3)
        assert wal.last_index == 2
        assert wal.read(3, 1000) == []
        append(wal, 1, term=2)
        assert wal.read(3, 1000) == [Entry(b"2/3.......", 3, 2)]

    @pytest.mark.parametrize("from_index", [10, 14])
    def test_outside_of_the_log_it_is_refused(self, folder: str, from_index: int) -> None:
        wal = Wal.open(folder, after=10, after_term=1)
        append(wal, 3)
        with pytest.raises(ValueError, match="cannot truncate"):
            wal.truncate(from_index)
        wal.close()

    def test_all_entries_can_go(self, wal: Wal) -> None:
        append(wal, 3)
        flush(wal)
        wal.truncate(1)
        assert (wal.last_index, wal.last_term, wal.durable_index) == (0, 0, 0)


class TestDurableIndex:
    def test_it_moves_when_a_flush_ends(self, wal: Wal) -> None:
        append(wal, 3)
        taken = wal.begin_flush()
        assert taken is not None
        append(wal, 2)
        taken.run()
        assert (wal.durable_index, wal.durable_lsn) == (0, 0)
        wal.end_flush(taken)
        assert (wal.durable_index, wal.durable_lsn) == (3, 3)
        flush(wal)
        assert (wal.durable_index, wal.durable_lsn) == (5, 5)

    def test_a_truncation_lowers_it_at_once(self, wal: Wal) -> None:
        append(wal, 5)
        flush(wal)
        wal.truncate(3)
        assert wal.durable_index == 2
        append(wal, 5)
        assert wal.durable_index == 2
        flush(wal)
        assert wal.durable_index == 7

    def test_a_truncation_while_a_flush_is_in_flight_bounds_it(self, wal: Wal) -> None:
        append(wal, 10)
        taken = wal.begin_flush()
        assert taken is not None
        wal.truncate(4)
        append(wal, 9, term=2)
        taken.run()
        wal.end_flush(taken)
        assert wal.durable_index == 3
        assert wal.durable_lsn == 10
        flush(wal)
        assert wal.durable_index == 12

    def test_a_truncation_before_the_flush_does_not_bound_it(self, wal: Wal) -> None:
        append(wal, 10)
        wal.truncate(4)
        append(wal, 2, term=2)
        flush(wal)
        assert wal.durable_index == 5

    def test_entries_rewritten_in_flight_count_only_with_their_own_flush(self, wal: Wal) -> None:
        append(wal, 10)
        flush(wal)
        append(wal, 5)
        taken = wal.begin_flush()
        assert taken is not None
        wal.truncate(8)
        append(wal, 20, term=2)
        wal.truncate(20)
        taken.run()
        wal.end_flush(taken)
        assert wal.durable_index == 7

    def test_a_reset_in_flight_bounds_it(self, wal: Wal) -> None:
        append(wal, 10)
        taken = wal.begin_flush()
        assert taken is not None
        wal.reset(6, 3)
        append(wal, 10, term=3)
        taken.run()
        wal.end_flush(taken)
        assert wal.durable_index == 6
        flush(wal)
        assert wal.durable_index == 16


class TestFlush:
    def test_only_one_is_in_flight(self, wal: Wal) -> None:
        append(wal, 1)
        taken = wal.begin_flush()
        assert taken is not None
        append(wal, 1)
        assert wal.begin_flush() is None
        taken.run()
        assert wal.begin_flush() is None
        wal.end_flush(taken)
        assert wal.begin_flush() is not None

    def test_it_is_one_write_and_one_sync(self) -> None:
        disk = MemoryFiles()
        wal = Wal.open("data/wal", files=disk)
        wal.set_hard_state(1, "a")
        append(wal, 100)
        wal.truncate(50)
        append(wal, 100, term=2)
        before = disk.steps
        flush(wal)
        assert disk.steps - before == 2

    def test_a_write_that_fails_poisons_the_wal(
        self, wal: Wal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_disk(self: object) -> None:
            raise OSError(errno.EIO, "gone")

        append(wal, 1)
        taken = wal.begin_flush()
        assert taken is not None
        monkeypatch.setattr("cute_logger.storage.filesystem.OsFile.sync", no_disk)
        with pytest.raises(OSError, match="gone"):
            taken.run()
        monkeypatch.undo()
        with pytest.raises(Poisoned):
            wal.end_flush(taken)
        with pytest.raises(Poisoned):
            wal.begin_flush()
        assert (wal.durable_lsn, wal.durable_index) == (0, 0)


def test_the_loop_never_touches_the_disk(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the disk was touched")

    wal = Wal.open(folder, segment_bytes_max=2000, cache_bytes_max=1000)
    for _ in range(10):
        append(wal, 5, size=200)
        flush(wal)
    append(wal, 50, size=200)
    with monkeypatch.context() as patch:
        for owner in ("OsFile", "OsFileSystem"):
            for name in ("read_at", "write_at", "truncate", "sync", "size", "map", "close"):
                patch.setattr(
                    f"cute_logger.storage.filesystem.{owner}.{name}", touched, raising=False
                )
            for name in ("open", "exists", "listdir", "rename", "remove", "sync_folder"):
                patch.setattr(
                    f"cute_logger.storage.filesystem.{owner}.{name}", touched, raising=False
                )
        taken = wal.begin_flush()
        assert taken is not None
        load = wal.load(30, 1000)
        remove = wal.drop_before(20)
        append(wal, 5)
        wal.truncate(100)
        wal.set_hard_state(2, "a")
        assert wal.bytes_between(25, 90) > 65 * 200
        assert wal.term_at(30) == 1
        assert wal.read(30, 1) is None
    taken.run()
    with monkeypatch.context() as patch:
        for name in ("read_at", "write_at", "sync", "size"):
            patch.setattr(f"cute_logger.storage.filesystem.OsFile.{name}", touched)
        wal.end_flush(taken)
    assert load()[0].index == 30
    remove()
    assert wal.first_index > 10
    wal.close()


class TestHardState:
    def test_it_is_there_again(self, folder: str) -> None:
        wal = Wal.open(folder)
        wal.set_hard_state(5, "node-2")
        assert (wal.term, wal.vote, wal.lsn) == (5, "node-2", 1)
        flush(wal)
        wal.close()
        again = Wal.open(folder)
        assert (again.term, again.vote) == (5, "node-2")
        again.set_hard_state(6, None)
        flush(again)
        again.close()
        third = Wal.open(folder)
        assert (third.term, third.vote) == (6, None)
        third.close()

    def test_it_survives_the_segment_it_was_written_in(self, folder: str) -> None:
        wal = Wal.open(folder, segment_bytes_max=500)
        wal.set_hard_state(5, "zoë")
        for _ in range(30):
            append(wal, 1, size=100)
            flush(wal)
        wal.drop_before(30)()
        wal.close()
        again = Wal.open(folder, after=29, after_term=1)
        assert (again.term, again.vote) == (5, "zoë")
        again.close()

    def test_an_empty_vote_is_refused(self, wal: Wal) -> None:
        with pytest.raises(ValueError, match="vote"):
            wal.set_hard_state(1, "")


class TestSegments:
    def test_a_full_segment_is_followed_by_another(self, folder: str) -> None:
        wal = Wal.open(folder, segment_bytes_max=1000)
        for _ in range(20):
            append(wal, 1, size=200)
            flush(wal)
        sizes = [path.stat().st_size for path in sorted(Path(folder).iterdir())]
        assert len(sizes) == 7
        assert max(sizes) <= 1000
        wal.close()

    def test_one_flush_goes_into_one_segment_however_large(self, folder: str) -> None:
        wal = Wal.open(folder, segment_bytes_max=1000)
        append(wal, 100, size=200)
        flush(wal)
        append(wal, 100, size=200)
        flush(wal)
        assert list_segments(OS_FILES, folder) == [1, 2]
        wal.close()

    def test_the_terms_of_all_entries_are_known_after_a_start_that_reads_only_the_last_one(
        self, folder: str
    ) -> None:
        wal = Wal.open(folder, segment_bytes_max=1000)
        for term in range(1, 40):
            append(wal, 2, term=term, size=100)
            flush(wal)
        expected = terms(wal)
        wal.close()
        again = Wal.open(folder, after=78, after_term=39)
        assert (again.first_index, again.last_index) == (1, 78)
        assert terms(again) == expected
        again.close()


class TestDrop:
    def open_with_segments(self, folder: str) -> Wal:
        """Entries 1 … 20; 4 in each segment of 5."""
        wal = Wal.open(folder, segment_bytes_max=1100)
        for term in range(1, 21):
            append(wal, 1, term=term, size=200)
            flush(wal)
        return wal

    def test_whole_segments_go(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        assert list_segments(OS_FILES, folder) == [1, 2, 3, 4, 5]
        wal.drop_before(4)()
        assert list_segments(OS_FILES, folder) == [1, 2, 3, 4, 5]
        wal.drop_before(8)()
        assert (list_segments(OS_FILES, folder), wal.first_index) == ([2, 3, 4, 5], 5)
        wal.drop_before(13)()
        assert (list_segments(OS_FILES, folder), wal.first_index) == ([4, 5], 13)
        assert wal.term_at(12) == 12
        with pytest.raises(ValueError, match="outside"):
            wal.term_at(11)
        wal.close()

    def test_the_newest_one_stays(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        wal.drop_before(21)()
        assert (list_segments(OS_FILES, folder), wal.first_index) == ([5], 17)
        wal.close()

    def test_the_first_index_moves_before_the_files_are_gone(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        remove = wal.drop_before(9)
        assert wal.first_index == 9
        assert list_segments(OS_FILES, folder) == [1, 2, 3, 4, 5]
        remove()
        assert list_segments(OS_FILES, folder) == [3, 4, 5]
        wal.close()

    def test_the_rest_is_there_after_a_start(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        wal.drop_before(13)()
        wal.close()
        again = Wal.open(folder, after=14, after_term=14)
        assert (again.first_index, again.last_index) == (13, 20)
        assert terms(again) == list(range(13, 21))
        assert again.term_at(12) == 12
        assert [entry.index for entry in again.load(13, 10_000)()] == list(range(13, 21))
        again.close()

    def test_a_log_that_begins_behind_the_checkpoint_is_damaged(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        wal.drop_before(13)()
        wal.close()
        with pytest.raises(Damaged, match="entries 8 to 12 are missing"):
            Wal.open(folder, after=7, after_term=7)

    def test_an_interrupted_removal_is_finished_at_the_next_start(self, folder: str) -> None:
        wal = self.open_with_segments(folder)
        wal.drop_before(13)
        wal.close()
        (Path(folder) / f"{2:020d}.wal").unlink()
        again = Wal.open(folder, after=12, after_term=12)
        assert list_segments(OS_FILES, folder) == [3, 4, 5]
        assert again.first_index == 9
        again.close()

    def test_behind_the_log_is_refused(self, wal: Wal) -> None:
        append(wal, 3)
        with pytest.raises(ValueError, match="behind the log's end"):
            wal.drop_before(5)


class TestReset:
    @pytest.mark.parametrize("index", [3, 100])
    def test_it_empties_the_log_and_goes_on_behind(self, folder: str, index: int) -> None:
        wal = Wal.open(folder)
        wal.set_hard_state(4, "a")
        append(wal, 10)
        flush(wal)
        lsn = wal.lsn
        wal.reset(index, 9)
        assert wal.lsn == lsn + 1
        assert (wal.first_index, wal.last_index, wal.last_term) == (index + 1, index, 9)
        append(wal, 2, term=9)
        flush(wal)
        assert wal.durable_index == index + 2
        wal.close()
        again = Wal.open(folder, after=index, after_term=9)
        assert (again.first_index, again.last_index) == (index + 1, index + 2)
        assert (again.term, again.vote) == (4, "a")
        assert again.term_at(index) == 9
        again.close()

    def test_older_segments_can_go_then(self, folder: str) -> None:
        wal = Wal.open(folder, segment_bytes_max=500)
        for _ in range(10):
            append(wal, 1, size=300)
            flush(wal)
        wal.reset(50, 2)
        flush(wal)
        wal.drop_before(51)()
        assert len(list_segments(OS_FILES, folder)) == 1
        wal.close()
        again = Wal.open(folder, after=50, after_term=2)
        assert (again.first_index, again.last_index) == (51, 50)
        again.close()


class TestBootRule:
    """The checkpoint is right; a log that ends before it, or strayed from it, is emptied."""

    @pytest.mark.parametrize(("after", "after_term"), [(11, 1), (1000, 3), (10, 2), (4, 2)])
    def test_a_log_that_does_not_fit_is_emptied(
        self, folder: str, after: int, after_term: int
    ) -> None:
        wal = Wal.open(folder)
        append(wal, 10)
        wal.set_hard_state(7, "b")
        flush(wal)
        wal.close()
        for _ in range(2):
            again = Wal.open(folder, after=after, after_term=after_term)
            assert (again.first_index, again.last_index) == (after + 1, after)
            assert (again.last_term, again.term, again.vote) == (after_term, 7, "b")
            assert again.durable_index == after
            again.close()

    def test_a_log_that_fits_is_kept(self, folder: str) -> None:
        wal = Wal.open(folder)
        append(wal, 10)
        flush(wal)
        wal.close()
        for after in (1, 5, 10):
            again = Wal.open(folder, after=after, after_term=1)
            assert (again.first_index, again.last_index) == (1, 10)
            again.close()


class TestMemory:
    def test_payloads_are_bounded_once_they_are_durable(self, folder: str) -> None:
        wal = Wal.open(folder, cache_bytes_max=10_000)
        append(wal, 100, size=1000)
        assert wal.read(1, 1) is not None
        flush(wal)
        assert wal.read(1, 1) is None
        assert wal.read(90, 1) is None
        assert wal.read(92, 1) is not None
        wal.close()

    def test_what_is_not_durable_stays(self, folder: str) -> None:
        wal = Wal.open(folder, cache_bytes_max=10_000)
        append(wal, 20, size=1000)
        taken = wal.begin_flush()
        assert taken is not None
        append(wal, 100, size=1000)
        taken.run()
        wal.end_flush(taken)
        assert wal.read(20, 1) is None
        assert wal.read(21, 10**9) is not None
        wal.close()

    def test_a_start_keeps_the_newest_entries_only(self, folder: str) -> None:
        wal = Wal.open(folder)
        append(wal, 100, size=1000)
        flush(wal)
        wal.close()
        again = Wal.open(folder, cache_bytes_max=10_000)
        assert again.read(91, 1) is None
        found = again.read(92, 10**9)
        assert found is not None
        assert [entry.index for entry in found] == list(range(92, 101))
        again.close()


class TestBytesBetween:
    def test_in_memory_it_is_exact(self, wal: Wal) -> None:
        append(wal, 3, size=100)
        append(wal, 3, size=999)
        assert wal.bytes_between(0, 3) == 3 * frame_size(100)
        assert wal.bytes_between(2, 5) == frame_size(100) + 2 * frame_size(999)
        assert wal.bytes_between(6, 6) == 0
        assert wal.bytes_between(5, 2) == 0
        assert wal.bytes_between(-7, 600) == 3 * frame_size(100) + 3 * frame_size(999)

    def test_after_a_truncation_only_what_is_left_counts(self, wal: Wal) -> None:
        append(wal, 6, size=100)
        wal.truncate(3)
        append(wal, 1, size=500)
        assert wal.bytes_between(0, 9) == 2 * frame_size(100) + frame_size(500)
