"""One write to the write-ahead log and its fdatasync: what goes from the loop to another thread."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from .wal_frame import FrameEncoder, Kind, Location, encode_vote
from .wal_image import Change, Entries, HardState, Image, Reset, Truncate
from .wal_segment import SegmentHeader, SegmentWriter


class _Written(NamedTuple):
    change: Change
    end_position: int
    locations: list[Location]


@dataclass(slots=True)
class Flush:
    """What `begin_flush` took out of the buffer."""

    lsn: int
    last_index: int
    size_bytes: int
    _writer: SegmentWriter
    _changes: list[Change]
    _header: SegmentHeader | None
    write_s: float = 0.0
    """How long the write and its fdatasync took; a new segment is not counted in."""
    _header_end: int = 0
    _written: list[_Written] = field(default_factory=list)
    _done: bool = False

    def run(self) -> None:
        """Write everything and make it durable, in a new segment if the newest one is full.

        Blocks; any thread, once. Raises OSError; the Wal is poisoned then.
        """
        writer = self._writer
        assert not self._done
        try:
            if self._header is not None:
                writer.roll(self._header)
                self._header_end = writer.position
            encoder = writer.encoder()
            for change in self._changes:
                self._written.append(_encode(encoder, change))
            started = time.perf_counter()
            writer.write(encoder)
            self.write_s = time.perf_counter() - started
        except BaseException as error:
            writer.failure = error
            raise
        self._done = True

    def show(self, image: Image) -> None:
        """Bring the image of the files up to date."""
        assert self._done, "end_flush comes after run has returned"
        if self._header is not None:
            image.begin_segment(self._header.sequence, self._header_end)
        for change, end_position, locations in self._written:
            if isinstance(change, Entries):
                _, last_index, term = change.entries[-1]
                image.append(last_index + 1, term, end_position, locations)
            else:
                image.change(change, end_position)


def _encode(encoder: FrameEncoder, change: Change) -> _Written:
    locations: list[Location] = []
    match change:
        case Entries(entries):
            locations = encoder.add_entries(entries)
        case Truncate(from_index):
            encoder.add(Kind.TRUNCATE, from_index, 0)
        case Reset(index, term):
            encoder.add(Kind.RESET, index, term)
        case HardState(term, vote):
            encoder.add(Kind.HARD_STATE, 0, term, encode_vote(vote))
    return _Written(change, encoder.position, locations)
