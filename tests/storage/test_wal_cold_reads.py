from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cute_logger.storage.errors import Damaged
from cute_logger.storage.wal import Entry, Wal
from cute_logger.storage.wal_frame import LOCATION_BYTES, Location, frame_size
from cute_logger.storage.wal_locations import Locations

CACHE_NOTHING = 1


def payload(index: int, term: int, size: int = 20) -> bytes:
    return f"{term}/{index}".encode().ljust(size, b".")


def append(wal: Wal, indexes: range, *, term: int, size: int = 20) -> None:
    for index in indexes:
        wal.append(index, term, payload(index, term, size))


def flush(wal: Wal) -> None:
    taken = wal.begin_flush()
    assert taken is not None
    taken.run()
    wal.end_flush(taken)


def rewritten(folder: str) -> Wal:
    """Segment 1: 1 … 100; 2: 101 … 199 of term 1; 3: TRUNCATE 90, 90 … 150 of term 2."""
    wal = Wal.open(folder, segment_bytes_max=1, cache_bytes_max=CACHE_NOTHING)
    append(wal, range(1, 101), term=1)
    flush(wal)
    append(wal, range(101, 200), term=1)
    flush(wal)
    wal.truncate(90)
    append(wal, range(90, 151), term=2)
    flush(wal)
    return wal


def expected(indexes: range) -> list[Entry]:
    return [
        Entry(payload(index, 1 if index < 90 else 2), index, 1 if index < 90 else 2)
        for index in indexes
    ]


def read_all(wal: Wal, start: int, end: int, bytes_max: int) -> list[Entry]:
    found: list[Entry] = []
    while start < end:
        some = wal.load(start, bytes_max, end)()
        assert some
        found += some
        start = some[-1].index + 1
    return found


class TestRewritten:
    @pytest.mark.parametrize("reopened", [False, True])
    @pytest.mark.parametrize("bytes_max", [1, 200, 1_000_000])
    def test_later_entries_win_across_segments(
        self, tmp_path: Path, *, reopened: bool, bytes_max: int
    ) -> None:
        folder = str(tmp_path / "wal")
        wal = rewritten(folder)
        if reopened:
            wal.close()
            wal = Wal.open(folder, after=80, after_term=1, cache_bytes_max=CACHE_NOTHING)
        assert wal.read(85, 1) is None
        assert read_all(wal, 85, 121, bytes_max) == expected(range(85, 121))
        assert read_all(wal, 1, 151, bytes_max) == expected(range(1, 151))
        wal.close()

    def test_later_entries_win_when_the_truncation_ends_the_older_segment(
        self, tmp_path: Path
    ) -> None:
        folder = str(tmp_path / "wal")
        wal = Wal.open(folder, segment_bytes_max=20_000, cache_bytes_max=CACHE_NOTHING)
        append(wal, range(1, 101), term=1, size=150)
        flush(wal)
        append(wal, range(101, 200), term=1, size=150)
        flush(wal)
        wal.truncate(90)
        flush(wal)
        append(wal, range(90, 151), term=2, size=150)
        flush(wal)
        for _ in range(2):
            found = wal.load(85, 1_000_000, 121)()
            assert [(e.index, e.term) for e in found] == [
                (index, 1 if index < 90 else 2) for index in range(85, 121)
            ]
            wal.close()
            wal = Wal.open(folder, cache_bytes_max=CACHE_NOTHING)
        wal.close()

    def test_a_segment_that_only_holds_truncated_entries_is_not_read(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "wal")
        wal = rewritten(folder)
        (tmp_path / "wal" / f"{2:020d}.wal").unlink()
        assert read_all(wal, 1, 151, 1_000_000) == expected(range(1, 151))
        wal.close()

    def test_entries_are_those_of_the_time_of_planning(self, tmp_path: Path) -> None:
        wal = rewritten(str(tmp_path / "wal"))
        read = wal.load(85, 1_000_000, 121)
        wal.truncate(70)
        append(wal, range(70, 130), term=3)
        flush(wal)
        assert read() == expected(range(85, 121))
        wal.close()


def test_a_truncation_that_waits_hides_the_entries_on_disk(tmp_path: Path) -> None:
    wal = Wal.open(str(tmp_path / "wal"), cache_bytes_max=CACHE_NOTHING)
    append(wal, range(1, 101), term=1)
    flush(wal)
    wal.truncate(50)
    append(wal, range(50, 60), term=2)
    assert [e.term for e in wal.load(45, 1_000_000)()] == [1] * 5
    assert [e.term for e in wal.read(50, 1_000_000) or ()] == [2] * 10
    assert wal.read(60, 1_000_000) == []
    wal.close()


def test_a_load_runs_beside_appends_and_flushes(tmp_path: Path) -> None:
    wal = Wal.open(str(tmp_path / "wal"), segment_bytes_max=50_000, cache_bytes_max=CACHE_NOTHING)
    append(wal, range(1, 501), term=1)
    flush(wal)
    failures: list[BaseException] = []
    reads = [wal.load(start, 100_000, start + 100) for start in range(1, 400)]

    def run() -> None:
        try:
            for start, read in enumerate(reads, start=1):
                want = [Entry(payload(i, 1), i, 1) for i in range(start, start + 100)]
                assert read() == want
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        append(wal, range(wal.last_index + 1, wal.last_index + 50), term=1)
        flush(wal)
    thread.join()
    assert not failures
    wal.close()


class TestDropped:
    def test_a_load_whose_files_are_gone_returns_nothing(self, tmp_path: Path) -> None:
        wal = rewritten(str(tmp_path / "wal"))
        read = wal.load(10, 1_000_000)
        wal.drop_before(120)()
        assert read() == []
        assert wal.first_index == 90
        wal.close()

    def test_a_load_returns_what_is_before_the_files_that_are_gone(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        wal = rewritten(str(folder))
        read = wal.load(10, 1_000_000)
        (folder / f"{3:020d}.wal").unlink()
        with pytest.raises(Damaged, match="missing"):
            read()
        wal.close()


class TestDamaged:
    def test_a_flipped_bit_is_found_when_it_is_read(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        wal = rewritten(str(folder))
        path = folder / f"{1:020d}.wal"
        data = bytearray(path.read_bytes())
        position = data.index(payload(50, 1))
        data[position] ^= 4
        path.write_bytes(data)
        assert read_all(wal, 1, 50, 300) == expected(range(1, 50))
        with pytest.raises(Damaged) as caught:
            wal.load(50, 1)()
        assert (caught.value.path, caught.value.position) == (str(path), position - 40)
        wal.close()


class TestLocations:
    def test_a_read_in_the_middle_begins_close_to_its_entry(self, tmp_path: Path) -> None:
        wal = Wal.open(str(tmp_path / "wal"), cache_bytes_max=CACHE_NOTHING)
        for start in range(1, 2001, 10):
            append(wal, range(start, start + 10), term=1, size=500)
            flush(wal)
        (piece,) = wal._image.extents.pieces(1500, 1501, 1, wal._locations)
        behind = (1500 - piece.nearest.entry) * frame_size(500)
        assert 0 <= behind < LOCATION_BYTES + 10 * frame_size(500)
        wal.close()

    def test_after_a_start_the_first_read_finds_the_way_for_the_next(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "wal")
        wal = Wal.open(folder, segment_bytes_max=1, cache_bytes_max=CACHE_NOTHING)
        append(wal, range(1, 2001), term=1, size=500)
        flush(wal)
        append(wal, range(2001, 2003), term=1)
        flush(wal)
        wal.close()
        wal = Wal.open(folder, after=2000, after_term=1, cache_bytes_max=CACHE_NOTHING)
        (piece,) = wal._image.extents.pieces(1500, 1501, 1, wal._locations)
        assert piece.nearest.entry == 1
        assert wal.load(1500, 1)() == [Entry(payload(1500, 1, 500), 1500, 1)]
        (piece,) = wal._image.extents.pieces(1501, 1502, 1, wal._locations)
        assert 0 <= (1501 - piece.nearest.entry) * frame_size(500) < 2 * LOCATION_BYTES
        wal.close()

    def test_they_are_bounded_and_the_oldest_go_first(self) -> None:
        locations = Locations(count_max=10)
        for sequence in range(20):
            some = [Location(1 + n, n * LOCATION_BYTES) for n in range(4)]
            locations.add((sequence, 0), some)
            assert len(locations) <= 10
        assert locations.around((0, 0), 2) == (None, None)
        assert locations.around((19, 0), 2) == (
            Location(2, LOCATION_BYTES),
            Location(3, 2 * LOCATION_BYTES),
        )

    def test_close_ones_are_not_kept(self) -> None:
        locations = Locations()
        locations.add((1, 0), [Location(n, n * 100) for n in range(1000)])
        assert len(locations) == 4
        locations.add((1, 0), [Location(n, n * 100) for n in range(1000)])
        assert len(locations) == 4


class TestBytesBetween:
    def test_on_disk_it_is_close(self, tmp_path: Path) -> None:
        folder = str(tmp_path / "wal")
        wal = Wal.open(folder, segment_bytes_max=300_000, cache_bytes_max=100_000)
        size = 0
        for index in range(1, 2001):
            wal.append(index, 1, bytes(index))
            if index % 50 == 0:
                flush(wal)
        for low, high in [
            (0, 2000),
            (100, 1000),
            (999, 1001),
            (1500, 2000),
            (10, 11),
            (1990, 2000),
        ]:
            size = sum(frame_size(index) for index in range(low + 1, high + 1))
            assert abs(wal.bytes_between(low, high) - size) <= 0.05 * size + LOCATION_BYTES
        wal.close()

    def test_memory_and_disk_add_up(self, tmp_path: Path) -> None:
        wal = Wal.open(str(tmp_path / "wal"), cache_bytes_max=10 * frame_size(100))
        append(wal, range(1, 101), term=1, size=100)
        flush(wal)
        assert wal.read(90, 1) is None
        assert wal.read(91, 1) is not None
        assert wal.bytes_between(0, 100) == 100 * frame_size(100)
        assert wal.bytes_between(80, 95) == 15 * frame_size(100)
        assert wal.bytes_between(80, 90) == 10 * frame_size(100)
        wal.close()
