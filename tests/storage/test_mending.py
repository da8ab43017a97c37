"""Damaged batches are put right from another copy, in place, and nothing else is ever written."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cute_logger.storage import (
    BadCopy,
    Batch,
    Damaged,
    DamagedBatch,
    Log,
    LogConfig,
    LogState,
    OffsetOutOfRange,
    Record,
    build_batch,
)
from cute_logger.storage.filesystem import Buffer, File, OsFileSystem
from cute_logger.storage.verify import Cursor, verify

CONFIG = LogConfig(segment_bytes_max=10_000, index_interval_bytes=1000)
COUNT = 220
ALL = 10**9


def chained(count: int, seed: int = 1) -> list[Batch]:
    """Batches of 96 to 396 bytes, some of several offsets, each with the digest before."""
    rng, made, offset, chain = random.Random(seed), list[Batch](), 0, bytes(16)
    for _ in range(count):
        made.append(
            build_batch(
                rng.randbytes(rng.randrange(300)),
                count=rng.randint(1, 3),
                base_offset=offset,
                timestamp=offset,
                max_timestamp=offset,
                chain=chain,
            )
        )
        offset, chain = made[-1].next_offset, made[-1].digest()
    return made


BATCHES = chained(COUNT)


class Copies:
    """A log, what its files should be, and a second one as a source of copies."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "log"
        with Log.open(str(self.folder), CONFIG) as log:
            log.append(BATCHES)
            self.state = log.sync()
        self.right = {path.name: path.read_bytes() for path in self.folder.glob("*.log")}

    def open(self, files: OsFileSystem | None = None) -> Log:
        self.found: list[DamagedBatch] = []
        return Log.open(
            str(self.folder),
            CONFIG,
            files=files or OsFileSystem(),
            vouched=self.state,
            on_damage=self.found.append,
        )

    def rot(self, batch: Batch, byte: int = 50, count: int = 1) -> DamagedBatch:
        """Flip bits in a batch; returns the damage it is."""
        base = max(each for each, _ in self.state.segments if each <= batch.base_offset)
        path = self.folder / f"{base:020d}.log"
        before = [each for each in BATCHES if base <= each.base_offset < batch.base_offset]
        position = sum(each.size for each in before)
        with path.open("r+b") as file:
            file.seek(position + byte)
            data = file.read(count)
            file.seek(position + byte)
            file.write(bytes(each ^ 0x55 for each in data))
        return DamagedBatch(str(path), position, "", base_offset=base, offset=batch.base_offset)

    def is_right(self) -> bool:
        return {path.name: path.read_bytes() for path in self.folder.glob("*.log")} == self.right


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


def data_from(offset: int, count: int = COUNT) -> bytes:
    wanted = [each for each in BATCHES if each.base_offset >= offset]
    return b"".join(each.data for each in wanted[:count])


def damage_in(log: Log) -> list[DamagedBatch]:
    """What a walk from one end to the other comes upon, each mended before it goes on."""
    found = []
    at = Cursor(log.first_offset)
    while at.offset < log.log_end_offset:
        try:
            at, _ = verify(log, at, 3000)
        except DamagedBatch as damage:
            found.append(damage)
            log.mend(damage.offset, data_from(damage.offset, 3))
            at = Cursor(damage.offset)
    return found


def test_damage_says_where_it_is(copies: Copies) -> None:
    wanted = copies.rot(BATCHES[70])
    with copies.open() as log, pytest.raises(DamagedBatch) as caught:
        log.read(BATCHES[70].base_offset, 1)
    found = caught.value
    assert (found.path, found.position) == (wanted.path, wanted.position)
    assert (found.base_offset, found.offset) == (wanted.base_offset, wanted.offset)


def test_a_copy_takes_the_place_of_damage_and_nothing_else_is_written(copies: Copies) -> None:
    damaged = BATCHES[70]
    copies.rot(damaged)
    with copies.open() as log:
        last, written = log.mend(damaged.base_offset, data_from(damaged.base_offset, 5))
        assert last == BATCHES[74]
        assert written == damaged.size
        assert log.read(0, ALL) == BATCHES
    assert copies.is_right()


@pytest.mark.parametrize("byte", [0, 4, 8, 15, 20, 27, 80, 95])
def test_damage_in_a_header_is_mended_too(copies: Copies, byte: int) -> None:
    copies.rot(BATCHES[70], byte, 3)
    with copies.open() as log:
        log.mend(BATCHES[70].base_offset, data_from(BATCHES[70].base_offset, 1))
        assert log.read(0, ALL) == BATCHES
    assert copies.is_right()


def test_what_is_behind_the_segment_or_half_is_left_out_of_a_copy(copies: Copies) -> None:
    base = copies.state.segments[1][0]
    last = next(each for each in BATCHES if each.next_offset == base)
    copies.rot(last)
    with copies.open() as log:
        ended, written = log.mend(last.base_offset, data_from(last.base_offset, 3)[:-10])
        assert (ended, written) == (last, last.size)
    assert copies.is_right()


@pytest.mark.parametrize("seed", range(12))
def test_a_walk_over_a_log_finds_all_damage_there_is(copies: Copies, seed: int) -> None:
    rng = random.Random(seed)
    rotten = rng.sample(BATCHES, rng.randint(1, 20))
    for batch in rotten:
        byte = rng.randrange(batch.size)
        copies.rot(batch, byte, rng.randint(1, batch.size - byte))
    with copies.open() as log:
        assert damage_in(log)
        assert log.read(0, ALL) == BATCHES
        assert log.last_digest == BATCHES[-1].digest()
        assert log.last_batch == BATCHES[-1].header_only()
    assert copies.is_right()


def test_a_walk_over_a_sound_log_finds_nothing(copies: Copies) -> None:
    with copies.open() as log:
        assert damage_in(log) == []
    assert copies.is_right()


class TestBadCopies:
    """Nothing is written for a copy that does not belong there."""

    @pytest.fixture(autouse=True)
    def rotten(self, copies: Copies) -> None:
        copies.rot(BATCHES[70])
        self.offset = BATCHES[70].base_offset
        self.rotten = {path: path.read_bytes() for path in copies.folder.glob("*.log")}

    @pytest.fixture(autouse=True)
    def nothing_was_written(self, rotten: None) -> Iterator[None]:
        yield
        assert {path: path.read_bytes() for path in self.rotten} == self.rotten

    def refused(self, copies: Copies, data: bytes, match: str) -> None:
        with copies.open() as log, pytest.raises(BadCopy, match=match):
            log.mend(self.offset, data)

    def test_rotten_itself(self, copies: Copies) -> None:
        data = bytearray(data_from(self.offset, 2))
        data[30] ^= 1
        self.refused(copies, bytes(data), "no batch of offset")

    def test_empty(self, copies: Copies) -> None:
        self.refused(copies, b"", "no batch of offset")

    def test_half_a_batch(self, copies: Copies) -> None:
        self.refused(copies, data_from(self.offset, 1)[:-1], "no batch of offset")

    def test_of_another_offset(self, copies: Copies) -> None:
        self.refused(copies, data_from(self.offset + 1, 2), "no batch of offset")

    def test_with_a_gap(self, copies: Copies) -> None:
        data = data_from(self.offset, 1) + bytes(BATCHES[72].data)
        self.refused(copies, data, "is due")

    def test_of_another_history(self, copies: Copies) -> None:
        self.refused(copies, rebuilt(BATCHES[70], chain=b"x" * 16), "another history")

    def test_that_what_follows_does_not_continue(self, copies: Copies) -> None:
        other = rebuilt(BATCHES[70], body=bytes(len(BATCHES[70].body)))
        self.refused(copies, other, "does not continue")

    def test_of_another_length(self, copies: Copies) -> None:
        long = rebuilt(BATCHES[70], body=bytes(20_000))
        self.refused(copies, long, "not as long")

    def test_that_ends_in_the_middle(self, copies: Copies) -> None:
        base = next(base for base, _ in copies.state.segments if base > self.offset)
        last = next(each for each in BATCHES if each.next_offset == base)
        short = rebuilt(BATCHES[70], count=last.next_offset - self.offset)
        self.refused(copies, short, "not as long")

    def test_where_no_batch_begins(self, copies: Copies) -> None:
        several = next(each for each in BATCHES if each.span > 1)
        inside = build_batch(
            b"", count=1, base_offset=several.base_offset + 1, timestamp=0, max_timestamp=0
        )
        with copies.open() as log, pytest.raises(BadCopy, match="no batch begins"):
            log.mend(inside.base_offset, bytes(inside.data))

    def test_of_what_is_not_in_the_log(self, copies: Copies) -> None:
        with copies.open() as log, pytest.raises(OffsetOutOfRange):
            log.mend(log.log_end_offset, b"")


def rebuilt(batch: Batch, *, body: bytes | None = None, **changes: object) -> bytes:
    fields = {"count": batch.count, "chain": batch.chain} | changes
    made = build_batch(
        bytes(batch.body) if body is None else body,
        base_offset=batch.base_offset,
        timestamp=batch.timestamp,
        max_timestamp=batch.max_timestamp,
        **fields,  # type: ignore[arg-type]
    )
    return bytes(made.data)


def test_damage_before_it_is_mended_first(copies: Copies) -> None:
    first = copies.rot(BATCHES[70])
    copies.rot(BATCHES[71])
    with copies.open() as log:
        with pytest.raises(DamagedBatch) as caught:
            log.mend(BATCHES[71].base_offset, data_from(BATCHES[71].base_offset, 1))
        assert caught.value.offset == first.offset
        log.mend(first.offset, data_from(first.offset, 1))
        log.mend(BATCHES[71].base_offset, data_from(BATCHES[71].base_offset, 1))
    assert copies.is_right()


def test_of_two_damaged_places_both_are_named(copies: Copies) -> None:
    copies.rot(BATCHES[5])
    copies.rot(BATCHES[25])
    with copies.open() as log:
        for number in (25, 5):
            with pytest.raises(DamagedBatch) as caught:
                log.read(BATCHES[number].base_offset, 1)
            assert caught.value.offset == BATCHES[number].base_offset


class TestTheIndex:
    """A wrong index is no damage."""

    def wrong(self, copies: Copies, log: Log, entry: int) -> None:
        """Have the first segment's index lead astray, as seen through the map of the open log."""
        log.read(0, 1)
        path = copies.folder / f"{0:020d}.index"
        with path.open("r+b") as file:
            file.seek(8 * entry)
            file.write((int.from_bytes(file.read(8), "little") + 7).to_bytes(8, "little"))

    def test_that_turns_wrong_at_run_time_is_rebuilt(self, copies: Copies) -> None:
        with copies.open() as log:
            right = (copies.folder / f"{0:020d}.index").read_bytes()
            self.wrong(copies, log, 3)
            assert [each for batch in BATCHES[:30] for each in log.read(batch.base_offset, 1)] == (
                BATCHES[:30]
            )
        assert (copies.folder / f"{0:020d}.index").read_bytes() == right
        assert copies.is_right()

    def test_that_is_wrong_beside_damage_hides_neither(self, copies: Copies) -> None:
        damaged = BATCHES[30]
        with copies.open() as log:
            self.wrong(copies, log, 2)
            copies.rot(damaged)
            for batch in BATCHES[:30]:
                assert log.read(batch.base_offset, 1) == [batch]
            with pytest.raises(DamagedBatch) as caught:
                log.read(damaged.base_offset, 1)
            assert caught.value.offset == damaged.base_offset
            log.mend(damaged.base_offset, data_from(damaged.base_offset, 1))
            assert log.read(0, ALL) == BATCHES
        assert copies.is_right()

    def test_that_leads_to_damage_is_right(self, copies: Copies) -> None:
        """One entry per batch: each damaged batch is where an entry points."""
        folder = copies.folder.with_name("dense")
        config = LogConfig(index_interval_bytes=1)
        with Log.open(str(folder), config) as log:
            log.append(BATCHES)
            state = log.sync()
        path = folder / f"{0:020d}.log"
        data = bytearray(path.read_bytes())
        data[sum(each.size for each in BATCHES[:70]) + 5] ^= 1
        data[sum(each.size for each in BATCHES[:80]) + 5] ^= 1
        path.write_bytes(data)
        index = path.with_suffix(".index").read_bytes()
        with Log.open(str(folder), config, vouched=state) as log:
            for number in (80, 70):
                with pytest.raises(DamagedBatch) as caught:
                    log.read(BATCHES[number].base_offset, 1)
                assert caught.value.offset == BATCHES[number].base_offset
            assert log.read(BATCHES[75].base_offset, 1) == [BATCHES[75]]
        assert path.with_suffix(".index").read_bytes() == index


class TestAtOpen:
    def test_a_damaged_end_is_reported_and_the_log_goes_on(self, copies: Copies) -> None:
        copies.rot(BATCHES[-1])
        more = chained(COUNT + 3)[-3:]
        with copies.open() as log:
            assert [each.offset for each in copies.found] == [BATCHES[-1].base_offset]
            log.append(more)
            with pytest.raises(DamagedBatch):
                log.read(BATCHES[-1].base_offset, 1)
            log.mend(BATCHES[-1].base_offset, data_from(BATCHES[-1].base_offset))
            assert log.read(0, ALL) == BATCHES + more
            copies.state = log.sync()
        with copies.open() as log:
            assert copies.found == []
            assert log.read(0, ALL) == BATCHES + more

    def test_a_log_whose_newest_batch_is_unknown_takes_no_records_of_its_own(
        self, copies: Copies
    ) -> None:
        copies.rot(BATCHES[-1])
        with copies.open() as log, pytest.raises(AssertionError, match="newest batch"):
            log.append_records([Record(b"value")], timestamp=1)

    def test_a_damaged_end_is_refused_by_who_cannot_mend_it(self, copies: Copies) -> None:
        copies.rot(BATCHES[-1])
        with pytest.raises(DamagedBatch):
            Log.open(str(copies.folder), CONFIG, vouched=copies.state)

    @pytest.mark.parametrize("number", [0, 2, -1])
    @pytest.mark.parametrize("left", [None, 0, 1234])
    def test_missing_bytes_are_damage_like_any_other(
        self, copies: Copies, number: int, left: int | None
    ) -> None:
        base, _ = copies.state.segments[number]
        path = copies.folder / f"{base:020d}.log"
        if left is None:
            path.unlink()
        else:
            os.truncate(path, left)
        with pytest.raises(Damaged):
            Log.open(str(copies.folder), CONFIG, vouched=copies.state)
        with copies.open() as log:
            assert base in [each.base_offset for each in copies.found]
            damage_in(log)
            assert log.read(0, ALL) == BATCHES
            assert log.sync() == copies.state
        assert copies.is_right()

    def test_an_index_lost_beside_damage_is_complete_after_mending(self, copies: Copies) -> None:
        base, _ = copies.state.segments[-1]
        index = copies.folder / f"{base:020d}.index"
        right = index.read_bytes()
        index.unlink()
        copies.rot(BATCHES[-1])
        with copies.open() as log:
            log.mend(BATCHES[-1].base_offset, data_from(BATCHES[-1].base_offset))
        assert index.read_bytes() == right


def test_what_was_trimmed_but_is_still_in_its_file_is_mended_too(copies: Copies) -> None:
    copies.rot(BATCHES[3])
    with copies.open() as log:
        log.trim(BATCHES[10].base_offset)
        with pytest.raises(OffsetOutOfRange):
            log.read(BATCHES[3].base_offset, 1)
        assert [each.offset for each in damage_in(log)] == [BATCHES[3].base_offset]
    assert copies.is_right()


def test_a_good_batch_of_another_history_is_found_and_mended(copies: Copies) -> None:
    """As a disk leaves it that put a block of an older life there: only the chain tells."""
    base, _ = copies.state.segments[1]
    first = next(number for number, each in enumerate(BATCHES) if each.base_offset == base)
    for number in (5, first, first - 1):
        wrong = rebuilt(BATCHES[number], body=bytes(len(BATCHES[number].body)))
        damage = copies.rot(BATCHES[number])
        with open(damage.path, "r+b") as file:
            file.seek(damage.position)
            file.write(wrong)
        with copies.open() as log:
            assert log.read(0, ALL) != BATCHES
            assert damage_in(log)
            assert log.read(0, ALL) == BATCHES
        assert copies.is_right()


class TestARangeOfASegment:
    def test_is_sound_where_no_damage_reaches_into_it(self, copies: Copies) -> None:
        damage = copies.rot(BATCHES[70])
        base, size = next(each for each in copies.state.segments if each[0] == damage.base_offset)
        end = damage.position + BATCHES[70].size
        with copies.open() as log:
            log.check(base, 0, damage.position)
            log.check(base, end + 2000, size)
            for start, stop in ((0, size), (damage.position, damage.position + 1), (end - 1, end)):
                with pytest.raises(DamagedBatch) as caught:
                    log.check(base, start, stop - start)
                assert caught.value.offset == damage.offset

    def test_of_a_segment_that_is_gone_is_out_of_range(self, copies: Copies) -> None:
        with copies.open() as log:
            log.trim(log.log_end_offset)
            with pytest.raises(OffsetOutOfRange):
                log.check(0, 0, 1)


class BadSectors(OsFileSystem):
    """A disk some of whose blocks cannot be read until they are written again."""

    def __init__(self, path: str, positions: Sequence[int]) -> None:
        self.path = path
        self.bad = {position // 4096 for position in positions}
        self.refuses_writes: int | None = None

    def open(self, path: str, *, create: bool = False) -> File:
        file = super().open(path, create=create)
        return BadFile(self, file) if path == self.path else file  # type: ignore[return-value]


class BadFile:
    def __init__(self, disk: BadSectors, file: File) -> None:
        self._disk = disk
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def read_at(self, position: int, length: int) -> bytes:
        if self._disk.bad & set(range(position // 4096, -(-(position + length) // 4096))):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._file.read_at(position, length)

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        if self._disk.refuses_writes is not None:
            raise OSError(self._disk.refuses_writes, os.strerror(self._disk.refuses_writes))
        size = sum(map(len, buffers))
        whole = range(-(-position // 4096), (position + size) // 4096)
        self._disk.bad -= set(whole)
        self._file.write_at(position, buffers)


def read_each(log: Log) -> None:
    for batch in BATCHES:
        log.read(batch.base_offset, 1)


@pytest.fixture
def bad_sectors(copies: Copies) -> BadSectors:
    base, _ = copies.state.segments[2]
    return BadSectors(str(copies.folder / f"{base:020d}.log"), [5000])


def test_a_block_that_the_disk_cannot_read_is_damage(
    copies: Copies, bad_sectors: BadSectors
) -> None:
    with copies.open(bad_sectors) as log:
        with pytest.raises(DamagedBatch) as caught:
            read_each(log)
        assert 4096 - 400 < caught.value.position <= 4096
        log.mend(caught.value.offset, data_from(caught.value.offset))
        assert not bad_sectors.bad
        assert log.read(0, ALL) == BATCHES
    assert copies.is_right()


def test_a_log_that_cuts_torn_tails_does_not_take_a_bad_block_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    with Log.open(str(folder)) as log:
        log.append(BATCHES)
    size = (folder / f"{0:020d}.log").stat().st_size
    disk = BadSectors(str(folder / f"{0:020d}.log"), [size - 1])
    with pytest.raises(OSError, match="Input/output"):
        Log.open(str(folder), files=disk)
    assert (folder / f"{0:020d}.log").stat().st_size == size


def test_a_disk_that_does_not_take_the_copy_leaves_damage_and_a_log_that_works(
    copies: Copies, bad_sectors: BadSectors
) -> None:
    base, _ = copies.state.segments[2]
    damaged = next(each for each in BATCHES if each.base_offset == base)
    copies.rot(damaged)
    bad_sectors.bad.clear()
    with copies.open(bad_sectors) as log:
        bad_sectors.refuses_writes = errno.ENOSPC
        with pytest.raises(DamagedBatch, match="cannot be overwritten") as caught:
            log.mend(base, data_from(base, 1))
        assert caught.value.offset == base
        bad_sectors.refuses_writes = None
        log.mend(base, data_from(base, 1))
        assert log.read(0, ALL) == BATCHES
    assert copies.is_right()


def test_a_wrong_index_costs_nothing_but_time_where_there_is_no_room_for_a_right_one(
    copies: Copies,
) -> None:
    index = copies.folder / f"{0:020d}.index"
    disk = BadSectors(str(index), [])
    index.write_bytes(random.randbytes(3) + index.read_bytes()[3:])
    with copies.open(disk) as log:
        disk.refuses_writes = errno.ENOSPC
        assert log.read(0, ALL) == BATCHES
        read_each(log)
    with copies.open() as log:
        read_each(log)
    assert copies.is_right()


def test_a_state_without_segments_is_an_empty_log(tmp_path: Path) -> None:
    with Log.open(str(tmp_path), vouched=LogState(), on_damage=pytest.fail) as log:
        assert verify(log, Cursor(), ALL) == (Cursor(), 0)
