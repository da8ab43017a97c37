"""A whole folder of the write-ahead log, damaged or forged: `storage.wal_recovery` and `Wal`."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from cute_logger.storage.errors import Damaged
from cute_logger.storage.wal import Entry, Wal
from cute_logger.storage.wal_frame import FrameEncoder, Kind, read_seed
from cute_logger.storage.wal_scan import WalScan
from cute_logger.storage.wal_segment import SegmentHeader, read_header
from fuzz.choices import Choices, edited, flipped, packed, type_of
from fuzz.disk import Disk
from fuzz.targets.wal_frames import forged

_FOLDER = "/wal"
_SEGMENT_BYTES = 700
_HEADER = type_of(SegmentHeader)


@dataclass(frozen=True, slots=True)
class _State:
    entries: tuple[Entry, ...]
    term: int
    vote: str | None


@dataclass(slots=True)
class _History:
    """What a log held, after each change."""

    states: list[_State] = field(default_factory=lambda: [_State((), 0, None)])
    flushed: list[int] = field(default_factory=lambda: [0, 0])
    """Numbers of the states at the end of each flush."""

    def possible(self) -> list[_State]:
        """What a folder may hold whose last flush was torn: the others are vouched for."""
        return self.states[self.flushed[-2] :]


def target(data: bytes) -> None:
    choices = Choices(data)
    disk = Disk()
    history = _grow(disk, choices)
    after = choices.below(4) if choices.below(4) == 3 else 0
    match choices.below(4):
        case 0:
            # One at most: a second one could hit the only frame that vouches for the first.
            for _ in range(choices.below(2)):
                _flip(disk, choices)
            _check_possible(disk, history.possible(), after)
        case 1:
            path = disk.files_in(_FOLDER)[-1]
            disk.put(path, disk.get(path) + choices.rest())
            _check_possible(disk, history.states[-1:], after)
        case 2:
            _cut(disk, choices)
            _check_possible(disk, history.states, after)
        case 3:
            for _ in range(1 + choices.below(3)):
                _forge(disk, choices)
            _check_usable(disk, after, choices.below(3))


def _grow(disk: Disk, choices: Choices) -> _History:
    history = _History()
    wal = Wal.open(_FOLDER, files=disk, segment_bytes_max=_SEGMENT_BYTES, cache_bytes_max=300)
    for _ in range(2 + choices.below(20)):
        last = history.states[-1]
        match choices.below(8):
            case 0 if last.entries:
                keep = choices.below(len(last.entries))
                wal.truncate(keep + 1)
                history.states.append(_State(last.entries[:keep], last.term, last.vote))
            case 1:
                vote = choices.pick((None, "n1", "n2"))
                wal.set_hard_state(last.term + 1, vote)
                history.states.append(_State(last.entries, last.term + 1, vote))
            case 2 | 3:
                _flush(wal, history)
            case _:
                entry = Entry(choices.binary(), len(last.entries) + 1, last.term)
                wal.append(entry.index, entry.term, entry.payload)
                history.states.append(_State((*last.entries, entry), last.term, last.vote))
    _flush(wal, history)
    wal.close()
    return history


def _flush(wal: Wal, history: _History) -> None:
    flush = wal.begin_flush()
    if flush is not None:
        flush.run()
        wal.end_flush(flush)
        history.flushed.append(len(history.states) - 1)


def _flip(disk: Disk, choices: Choices) -> None:
    path = choices.pick(disk.files_in(_FOLDER))
    content = disk.get(path)
    disk.put(path, flipped(content, choices.below(8 * len(content))))


def _cut(disk: Disk, choices: Choices) -> None:
    path = disk.files_in(_FOLDER)[-1]
    content = disk.get(path)
    disk.put(path, content[: choices.below(len(content))])


def _forge(disk: Disk, choices: Choices) -> None:
    """Change what only a checksum protects, and the checksum with it."""
    path = choices.pick(disk.files_in(_FOLDER))
    file = disk.open(path)
    seed = read_seed(file)
    match choices.below(8):
        case 0:
            disk.remove(path)
            name = choices.text().replace("/", "") or choices.pick("²٣x") * 20
            disk.put(f"{_FOLDER}/{name}.wal", choices.binary())
        case 1:
            disk.put(f"{_FOLDER}/{choices.below(6):020d}.wal", disk.get(path))
        case 2 | 3 | 4:
            try:
                header, seed, end = read_header(file, path)
            except Damaged:
                return
            fields = list(msgspec.structs.astuple(header))
            at = choices.below(len(fields))
            fields[at] = choices.value(_HEADER.fields[at].type)
            payload = msgspec.msgpack.encode(fields)
            match choices.below(8):
                case 6:
                    payload = packed(choices, _HEADER)
                case 7:
                    payload = edited(payload, choices)
            encoder = FrameEncoder(seed, position=0, vouched=0)
            encoder.add(Kind.SEGMENT, choices.below(8), choices.below(8), payload)
            disk.put(path, b"".join(encoder.buffers()) + disk.get(path)[end:])
        case _:
            disk.put(path, disk.get(path) + forged(choices, seed))


def _check_possible(disk: Disk, possible: list[_State], after: int) -> None:
    """The folder is refused, or holds one of the states; what it returns is what was written."""
    newest = possible[-1].entries
    after = min(after, len(newest))
    try:
        wal = _opened(disk, after, newest[after - 1].term if after else 0)
        entries = tuple(_read(wal))
    except Damaged:
        return
    found = _State(entries, wal.term, wal.vote)
    if wal.first_index <= after or not after:
        # Else it was emptied, because another term than the checkpoint's was left at its end.
        assert any(_is_end_of(found, state, wal.first_index) for state in possible)
    wal.close()


def _read(wal: Wal) -> list[Entry]:
    entries: list[Entry] = []
    while wal.first_index + len(entries) <= wal.last_index:
        found = wal.load(wal.first_index + len(entries), 200)()
        assert found, "a read of nothing"
        entries += found
    return entries


def _opened(disk: Disk, after: int, after_term: int) -> Wal:
    return Wal.open(
        _FOLDER,
        files=disk,
        after=after,
        after_term=after_term,
        segment_bytes_max=_SEGMENT_BYTES,
        cache_bytes_max=300,
    )


def _is_end_of(found: _State, state: _State, first_index: int) -> bool:
    hard = (found.term, found.vote) == (state.term, state.vote)
    return hard and found.entries == state.entries[first_index - 1 :]


def _check_usable(disk: Disk, after: int, term: int) -> None:
    """A forged folder may hold anything, but it is refused or makes a log that works."""
    for _ in WalScan(disk, _FOLDER).run():
        pass
    try:
        wal = Wal.open(_FOLDER, files=disk, after=after, after_term=term)
    except Damaged:
        return
    assert wal.first_index - 1 <= after <= wal.last_index
    wal.bytes_between(0, wal.last_index)
    try:
        entries = _read(wal)
    except Damaged:
        entries = []
    for number, entry in enumerate(entries, wal.first_index):
        assert entry.index == number
        wal.term_at(number)
    wal.append(wal.last_index + 1, wal.last_term, b"more")
    flush = wal.begin_flush()
    assert flush is not None
    flush.run()
    wal.end_flush(flush)
    wal.close()
    again = Wal.open(_FOLDER, files=disk, after=after, after_term=wal.term_at(after))
    assert again.last_index == wal.last_index
    assert again.load(again.last_index, 1)()[0].payload == b"more"
    again.close()
