from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cute_logger.storage.errors import Damaged
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.wal import Entry, Flush, Wal
from cute_logger.storage.wal_frame import FrameEncoder, Kind
from cute_logger.storage.wal_segment import first_header, list_segments, read_header

from .memory_files import Choose, MemoryFiles, PowerLost, keep_all, keep_nothing


def flush(wal: Wal) -> None:
    taken = wal.begin_flush()
    assert taken is not None
    taken.run()
    wal.end_flush(taken)


def append(wal: Wal, count: int, *, term: int = 1, size: int = 13) -> None:
    for _ in range(count):
        index = wal.last_index + 1
        wal.append(index, term, f"{term}/{index}".encode().ljust(size, b"."))


def segment(folder: Path, sequence: int = 1) -> Path:
    return folder / f"{sequence:020d}.wal"


def header_size(path: Path) -> int:
    return read_header(OS_FILES.open(str(path)), str(path))[2]


def contents(wal: Wal) -> tuple[list[Entry], int, str | None]:
    return wal.load(wal.first_index, 10**9)(), wal.term, wal.vote


class TestTornTail:
    def make(
        self, folder: Path
    ) -> tuple[int, list[int], list[tuple[list[Entry], int, str | None]]]:
        """Write two flushes; return where the second begins, its frames' ends and states."""
        wal = Wal.open(str(folder))
        wal.set_hard_state(1, "a")
        append(wal, 3)
        flush(wal)
        begin = segment(folder).stat().st_size
        ends, states = [begin], [contents(wal)]
        steps: list[Callable[[], None]] = [
            lambda: append(wal, 1),
            lambda: wal.set_hard_state(2, None),
            lambda: wal.truncate(3),
            lambda: append(wal, 1, term=2, size=50),
            lambda: wal.set_hard_state(3, "b"),
        ]
        for step in steps:
            before = wal.pending_bytes
            step()
            ends.append(ends[-1] + wal.pending_bytes - before)
            states.append(contents(wal))
        flush(wal)
        assert segment(folder).stat().st_size == ends[-1]
        wal.close()
        return begin, ends, states

    @pytest.mark.parametrize("tail", ["cut", "zeros", "garbage"])
    def test_wherever_the_last_flush_was_torn_its_whole_frames_are_kept(
        self, tmp_path: Path, tail: str
    ) -> None:
        origin = tmp_path / "wal"
        begin, ends, states = self.make(origin)
        paddings = [3, 0, 0, 6, 7]
        data = segment(origin).read_bytes()
        for size in range(begin, len(data) + 1):
            folder = tmp_path / f"{size}"
            shutil.copytree(origin, folder)
            rest = {"cut": b"", "zeros": bytes(512), "garbage": b"\xa5" * 512}[tail]
            segment(folder).write_bytes(data[:size] + rest)
            kept = sum(end <= size for end in ends) - 1
            if tail != "cut" and kept < len(paddings):
                # Only padding was torn off, or zeros by zeros: the frame is whole.
                lost = data[size : ends[kept + 1]]
                kept += len(lost) <= paddings[kept] or (tail == "zeros" and not any(lost))
            wal = Wal.open(str(folder))
            assert contents(wal) == states[kept]
            assert wal.durable_index == wal.last_index
            assert segment(folder).stat().st_size == ends[kept]
            append(wal, 2, term=9)
            flush(wal)
            expected = contents(wal)
            wal.close()
            wal = Wal.open(str(folder))
            assert contents(wal) == expected
            wal.close()

    def test_a_lost_page_before_sound_ones_of_the_same_flush_is_torn(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        begin, ends, states = self.make(folder)
        data = bytearray(segment(folder).read_bytes())
        data[ends[1] : ends[2]] = bytes(ends[2] - ends[1])
        segment(folder).write_bytes(data)
        wal = Wal.open(str(folder))
        assert contents(wal) == states[1]
        assert segment(folder).stat().st_size == ends[1] > begin
        wal.close()

    def test_a_payload_that_copies_the_log_does_not_turn_a_torn_end_into_damage(
        self, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        wal = Wal.open(str(other))
        for _ in range(10):
            append(wal, 1)
            flush(wal)
        wal.close()
        copied = segment(other).read_bytes()
        folder = tmp_path / "wal"
        wal = Wal.open(str(folder))
        append(wal, 1)
        flush(wal)
        wal.append(2, 1, copied + bytes(8))
        flush(wal)
        wal.close()
        data = segment(folder).read_bytes()
        segment(folder).write_bytes(data[:-8])
        wal = Wal.open(str(folder))
        assert wal.last_index == 1
        wal.close()


class TestRot:
    def make(self, folder: Path) -> tuple[int, int]:
        """Write two flushes; return where the frames begin and where the second flush does."""
        wal = Wal.open(str(folder))
        wal.set_hard_state(1, "a")
        append(wal, 2)
        flush(wal)
        second = segment(folder).stat().st_size
        append(wal, 1)
        flush(wal)
        wal.close()
        return header_size(segment(folder)), second

    def damage(self, folder: Path) -> Damaged | None:
        try:
            Wal.open(str(folder)).close()
        except Damaged as damaged:
            return damaged
        return None

    def test_a_flipped_bit_below_what_a_later_frame_vouches_for_is_damage(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "wal"
        begin, second = self.make(folder)
        path = segment(folder)
        data = path.read_bytes()
        unnoticed = set()
        for position in range(begin, second):
            rotten = bytearray(data)
            rotten[position] ^= 1 << position % 8
            path.write_bytes(rotten)
            damaged = self.damage(folder)
            if damaged is None:
                unnoticed.add(position)
                continue
            assert damaged.path == str(path)
            assert begin <= damaged.position <= position
            assert path.read_bytes() == rotten
        padding = {begin + 40 + 1 + n for n in range(7)}
        padding |= {begin + 48 + 56 * n + 53 + m for n in range(2) for m in range(3)}
        assert unnoticed == padding

    def test_a_flipped_bit_in_the_last_flush_counts_as_torn(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        _, second = self.make(folder)
        data = bytearray(segment(folder).read_bytes())
        data[second + 41] ^= 1
        segment(folder).write_bytes(data)
        wal = Wal.open(str(folder))
        assert wal.last_index == 2
        wal.close()

    def test_a_header_that_does_not_read_back_is_damage(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        begin, _ = self.make(folder)
        data = segment(folder).read_bytes()
        for position in range(begin - 8):
            rotten = bytearray(data)
            rotten[position] ^= 16
            segment(folder).write_bytes(rotten)
            with pytest.raises(Damaged) as caught:
                Wal.open(str(folder))
            assert caught.value.position == 0


class TestHeaderThatMakesNoSense:
    """Its checksum is right: a bug wrote it, or somebody did."""

    def opened(self, folder: Path, payload: bytes) -> Damaged:
        wal = Wal.open(str(folder))
        append(wal, 3)
        flush(wal)
        wal.close()
        path = segment(folder)
        file = OS_FILES.open(str(path))
        seed = read_header(file, str(path))[1]
        encoder = FrameEncoder(seed, position=0, vouched=0)
        encoder.add(Kind.SEGMENT, 0, 0, payload)
        path.write_bytes(b"".join(encoder.buffers()) + path.read_bytes()[header_size(path) :])
        with pytest.raises(Damaged) as caught:
            Wal.open(str(folder))
        return caught.value

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": 2},
            {"sequence": 2},
            {"base_index": 1},
            {"base_index": -1},
            {"last_index": 2**63},
            {"term": -1},
            {"runs": ()},
            {"runs": ((1, 1),)},
            {"runs": ((0, 1), (0, 2))},
            {"runs": ((-1, 1),)},
            {"last_index": 3},
            {"last_index": 3, "extents": ((2, 1, 0, 9),)},
            {"last_index": 3, "extents": ((1, 1, 9, 0),)},
            {"last_index": 3, "extents": ((1, 2, 0, 9),)},
            {"last_index": 3, "extents": ((1, 1, 0, 9), (1, 1, 9, 18))},
            {"last_index": 3, "extents": ((1, 1, 0, 9), (4, 1, 9, 18))},
            {"last_index": 3, "extents": ((1, 1, -8, 9),)},
        ],
    )
    def test_is_damage(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        header = msgspec.structs.replace(first_header(0, 0), **changes)
        damaged = self.opened(tmp_path / "wal", msgspec.msgpack.encode(header))
        assert (damaged.path, damaged.position) == (str(segment(tmp_path / "wal")), 0)

    def test_with_a_vote_that_is_no_text_is_damage(self, tmp_path: Path) -> None:
        header = msgspec.structs.replace(first_header(0, 0), vote="?")
        payload = msgspec.msgpack.encode(header).replace(b"?", b"\xff")
        assert "not understood" in self.opened(tmp_path / "wal", payload).reason


class TestSealedSegments:
    def make(self, folder: Path) -> None:
        """Write segments 1 … 4, one flush of 5 entries in each."""
        wal = Wal.open(str(folder), segment_bytes_max=1)
        for _ in range(4):
            append(wal, 5)
            flush(wal)
        wal.close()
        assert list_segments(OS_FILES, str(folder)) == [1, 2, 3, 4]

    def damage(self, folder: Path, after: int) -> Damaged:
        with pytest.raises(Damaged) as caught:
            Wal.open(str(folder), after=after, after_term=1)
        return caught.value

    @pytest.mark.parametrize("cut", [1, 56, 5 * 56])
    def test_one_that_lost_its_end_is_damaged(self, tmp_path: Path, cut: int) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        path = segment(folder, 3)
        path.write_bytes(path.read_bytes()[:-cut])
        assert self.damage(folder, 5).path == str(path)

    def test_one_with_a_bad_last_frame_is_damaged(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        path = segment(folder, 3)
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        damaged = self.damage(folder, 5)
        assert (damaged.path, damaged.position) == (str(path), len(data) - 56)

    def test_one_that_is_missing_behind_the_checkpoint_is_damage(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        segment(folder, 2).unlink()
        assert "entries 6 to 10 are missing" in self.damage(folder, 5).reason
        assert list_segments(OS_FILES, str(folder)) == [1, 3, 4]

    def test_one_under_another_name_is_damaged(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        segment(folder, 4).write_bytes(segment(folder, 3).read_bytes())
        assert "segment 3" in self.damage(folder, 5).reason

    def test_what_a_checkpoint_covers_is_not_read_at_start(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        segment(folder, 1).write_bytes(b"")
        wal = Wal.open(str(folder), after=5, after_term=1)
        assert (wal.first_index, wal.last_index) == (1, 20)
        with pytest.raises(Damaged):
            wal.load(2, 1)() if wal.read(2, 1) is None else None
        wal.close()

    @pytest.mark.parametrize("digit", "²٣x")
    def test_a_file_of_another_name_is_none(self, tmp_path: Path, digit: str) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        (folder / f"{digit * 20}.wal").write_bytes(b"notes")
        Wal.open(str(folder)).close()
        assert list_segments(OS_FILES, str(folder)) == [1, 2, 3, 4]

    def test_a_segment_that_never_got_its_name_is_removed(self, tmp_path: Path) -> None:
        folder = tmp_path / "wal"
        self.make(folder)
        unfinished = folder / f"{5:020d}.wal.new"
        unfinished.write_bytes(b"half a header")
        wal = Wal.open(str(folder), segment_bytes_max=1)
        assert not unfinished.exists()
        append(wal, 1)
        flush(wal)
        assert list_segments(OS_FILES, str(folder)) == [1, 2, 3, 4, 5]
        wal.close()


def test_a_crash_at_any_step_of_a_roll_loses_nothing_durable() -> None:
    for steps in range(8):
        for choose in (keep_nothing, keep_all):
            disk = MemoryFiles()
            wal = Wal.open("data/wal", files=disk, segment_bytes_max=200)
            append(wal, 3)
            flush(wal)
            append(wal, 3, term=2)
            taken = wal.begin_flush()
            assert taken is not None
            disk.steps_max = disk.steps + steps
            try:
                taken.run()
                finished = True
            except PowerLost:
                finished = False
            assert finished == (steps >= 7)
            again = Wal.open("data/wal", files=disk.crash(choose))
            assert again.last_index >= (6 if finished else 3)
            assert again.durable_index == again.last_index


def test_what_a_start_found_is_durable_before_it_counts() -> None:
    disk = MemoryFiles()
    wal = Wal.open("data/wal", files=disk)
    append(wal, 3)
    taken = wal.begin_flush()
    assert taken is not None
    disk.steps_max = disk.steps + 1
    with pytest.raises(PowerLost):
        taken.run()
    disk.steps_max = None
    killed = Wal.open("data/wal", files=disk)
    assert killed.durable_index == 3
    after = Wal.open("data/wal", files=disk.crash(keep_nothing))
    assert after.last_index == 3


def test_a_segment_found_at_start_keeps_its_name_although_the_roll_was_not_finished() -> None:
    disk = MemoryFiles()
    wal = Wal.open("data/wal", files=disk, segment_bytes_max=1)
    append(wal, 3)
    flush(wal)
    append(wal, 3)
    taken = wal.begin_flush()
    assert taken is not None
    disk.steps_max = disk.steps + 4
    with pytest.raises(PowerLost):
        taken.run()
    disk.steps_max = None
    killed = Wal.open("data/wal", files=disk)
    assert list_segments(disk, "data/wal") == [1, 2]
    append(killed, 5)
    flush(killed)
    after = Wal.open("data/wal", files=disk.crash(keep_nothing))
    assert after.last_index == 8


@dataclass(frozen=True)
class State:
    """The model: what the log is after some number of changes."""

    base: int
    base_term: int
    entries: tuple[tuple[int, bytes], ...]
    term: int
    vote: str | None

    @property
    def last_index(self) -> int:
        return self.base + len(self.entries)

    def entry(self, index: int) -> tuple[int, bytes]:
        return self.entries[index - self.base - 1]

    def term_at(self, index: int) -> int:
        return self.base_term if index == self.base else self.entry(index)[0]

    def fits(self, after: int, after_term: int) -> bool:
        return self.base <= after <= self.last_index and self.term_at(after) == after_term


class WalMachine(RuleBasedStateMachine):
    """A Wal on a disk that loses power, beside a list of the states it went through."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = MemoryFiles()
        self.checkpoint = (0, 0)
        self.numbers = iter(range(10**9))
        self.flush: Flush | None = None
        self.ran = False
        self.loads: list[tuple[Callable[[], list[Entry]], list[Entry]]] = []
        self.dropped = 0

    @initialize(
        segment_bytes_max=st.sampled_from([1, 400, 1500, 10**6]),
        cache_bytes_max=st.sampled_from([1, 300, 10**6]),
    )
    def begin(self, segment_bytes_max: int, cache_bytes_max: int) -> None:
        self.segment_bytes_max, self.cache_bytes_max = segment_bytes_max, cache_bytes_max
        self.open()
        self.state = State(0, 0, (), 0, None)
        self.states = {0: self.state}

    def open(self) -> None:
        self.wal = Wal.open(
            "data/wal",
            files=self.disk,
            after=self.checkpoint[0],
            after_term=self.checkpoint[1],
            segment_bytes_max=self.segment_bytes_max,
            cache_bytes_max=self.cache_bytes_max,
        )

    def changed(self, state: State) -> None:
        self.state = state
        self.states[self.wal.lsn] = state

    @rule(count=st.integers(1, 8), size=st.integers(0, 120), new_term=st.booleans())
    def append(self, count: int, size: int, *, new_term: bool) -> None:
        s = self.state
        term = max(1, s.term_at(s.last_index)) + new_term
        for _ in range(count):
            payload = b"%d" % next(self.numbers) + b"." * size
            self.wal.append(self.state.last_index + 1, term, payload)
            s = self.state
            entries = (*s.entries, (term, payload))
            self.changed(State(s.base, s.base_term, entries, s.term, s.vote))

    @rule(back=st.integers(1, 12))
    def truncate(self, back: int) -> None:
        s = self.state
        from_index = max(s.last_index + 1 - back, self.checkpoint[0] + 1)
        if from_index <= s.last_index:
            self.wal.truncate(from_index)
            entries = s.entries[: from_index - s.base - 1]
            self.changed(State(s.base, s.base_term, entries, s.term, s.vote))

    @rule(vote=st.sampled_from([None, "a", "node-2"]))
    def set_hard_state(self, vote: str | None) -> None:
        s = self.state
        self.wal.set_hard_state(s.term + 1, vote)
        self.changed(State(s.base, s.base_term, s.entries, s.term + 1, vote))

    @rule(ahead=st.integers(0, 10))
    def install(self, ahead: int) -> None:
        """A checkpoint from elsewhere: durable first, then the log is reset to it."""
        s = self.state
        index, term = s.last_index + ahead, s.term_at(s.last_index) + 1
        self.checkpoint = (index, term)
        self.wal.reset(index, term)
        self.changed(State(index, term, (), s.term, s.vote))

    @rule(share=st.floats(0, 1))
    def take_checkpoint(self, share: float) -> None:
        low, high = self.checkpoint[0], self.wal.durable_index
        if self.state.base <= low < high:
            index = low + round((high - low) * share)
            self.checkpoint = (index, self.state.term_at(index))

    @rule(behind=st.integers(0, 10))
    def drop(self, behind: int) -> None:
        index = max(0, self.checkpoint[0] + 1 - behind)
        self.wal.drop_before(index)()
        self.dropped = max(self.dropped, index)

    @precondition(lambda self: self.flush is None)
    @rule()
    def begin_flush(self) -> None:
        self.flush = self.wal.begin_flush()
        self.ran = False

    @precondition(lambda self: self.flush is not None and not self.ran)
    @rule()
    def run_flush(self) -> None:
        assert self.flush is not None
        self.flush.run()
        self.ran = True

    @precondition(lambda self: self.ran)
    @rule()
    def end_flush(self) -> None:
        assert self.flush is not None
        self.wal.end_flush(self.flush)
        self.flush, self.ran = None, False

    @rule()
    def flush_all(self) -> None:
        while True:
            if self.flush is None:
                self.begin_flush()
            if self.flush is None:
                break
            if not self.ran:
                self.run_flush()
            self.end_flush()
        assert self.wal.durable_lsn == self.wal.lsn
        assert self.wal.durable_index == self.wal.last_index
        assert self.wal.pending_bytes == 0

    def expected(self, start: int, end: int) -> list[Entry]:
        return [Entry(p, i, t) for i in range(start, end) for t, p in [self.state.entry(i)]]

    @rule(
        low=st.floats(0, 1),
        length=st.integers(0, 20),
        bytes_max=st.integers(0, 2000),
        now=st.booleans(),
    )
    def read(self, low: float, length: int, bytes_max: int, *, now: bool) -> None:
        wal = self.wal
        start = wal.first_index + round((wal.last_index + 1 - wal.first_index) * low)
        end = start + length
        want = self.expected(start, min(end, wal.last_index + 1))
        in_memory = wal.read(start, bytes_max, end)
        if in_memory is not None:
            assert in_memory == want[: len(in_memory)]
            assert bool(in_memory) == bool(want)
        load = wal.load(start, bytes_max, end)
        if now:
            loaded = load()
            assert loaded == want[: len(loaded)]
            assert bool(loaded) == bool(want)
        else:
            self.loads.append((load, want))

    @precondition(lambda self: self.loads)
    @rule()
    def run_loads(self) -> None:
        for load, want in self.loads:
            loaded = load()
            assert loaded == want[: len(loaded)]
            gone = want and want[0].index < self.wal.first_index
            assert bool(loaded) == bool(want) or gone
        self.loads.clear()

    @rule(data=st.data(), lose_power_while_flushing=st.booleans(), only_killed=st.booleans())
    def crash(
        self, data: st.DataObject, *, lose_power_while_flushing: bool, only_killed: bool
    ) -> None:
        if lose_power_while_flushing and self.flush is None:
            self.begin_flush()
        if lose_power_while_flushing and self.flush is not None and not self.ran:
            self.disk.steps_max = self.disk.steps + data.draw(st.integers(0, 7))
            try:
                self.flush.run()
                self.ran = True
            except PowerLost:
                pass
        self.disk.steps_max = None
        choose: Choose = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
        if not only_killed:
            self.disk = self.disk.crash(choose)
        low, high = self.wal.durable_lsn, self.wal.durable_lsn
        if self.flush is not None:
            low, high = (self.flush.lsn if self.ran else low), self.flush.lsn
        self.restart([self.states[lsn] for lsn in range(low, high + 1)])

    def restart(self, possible: list[State]) -> None:
        self.flush, self.ran = None, False
        self.loads.clear()
        self.open()
        after, after_term = self.checkpoint
        possible = [
            s if s.fits(after, after_term) else State(after, after_term, (), s.term, s.vote)
            for s in possible
        ]
        self.state = next((s for s in possible if self.agrees(s)), possible[0])
        assert self.agrees(self.state)
        assert self.wal.durable_index == self.wal.last_index
        self.states = {self.wal.lsn: self.state}

    def agrees(self, s: State) -> bool:
        wal = self.wal
        if (wal.last_index, wal.term, wal.vote) != (s.last_index, s.term, s.vote):
            return False
        first = wal.first_index
        found: list[Entry] = []
        while first + len(found) <= wal.last_index:
            more = wal.load(first + len(found), 10**9)()
            if not more:
                return False
            found += more
        return found == [
            Entry(p, i, t) for i in range(first, s.last_index + 1) for t, p in [s.entry(i)]
        ]

    @invariant()
    def bounds_and_terms_are_those_of_the_model(self) -> None:
        wal, s = self.wal, self.state
        assert (wal.last_index, wal.term, wal.vote) == (s.last_index, s.term, s.vote)
        assert s.base < wal.first_index <= max(s.base + 1, self.dropped)
        for index in range(wal.first_index - 1, wal.last_index + 1):
            assert wal.term_at(index) == s.term_at(index)

    @invariant()
    def what_is_called_durable_is(self) -> None:
        wal = self.wal
        assert wal.durable_lsn <= wal.lsn
        assert wal.durable_index <= wal.last_index
        durable = self.states[wal.durable_lsn]
        if durable.base == self.state.base:
            for index in range(self.state.base + 1, wal.durable_index + 1):
                assert durable.entry(index) == self.state.entry(index)


def test_nothing_durable_is_ever_lost_or_mixed() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        WalMachine,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
