"""What the segment files say, up to a position in the newest one.

The Wal keeps one for what it has flushed, recovery builds one frame by frame, and the header of
each new segment carries one: so the newest header and the frames behind it tell all about the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .term_runs import TermRuns
from .wal_extents import Extent, Extents
from .wal_frame import LOCATION_BYTES, Entry, Location
from .wal_locations import Locations
from .wal_segment import SEGMENT_VERSION, SegmentHeader


@dataclass(frozen=True, slots=True)
class Entries:
    """Consecutive entries of one term, to be written."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Truncate:
    from_index: int


@dataclass(frozen=True, slots=True)
class Reset:
    index: int
    term: int


@dataclass(frozen=True, slots=True)
class HardState:
    term: int
    vote: str | None


Change = Entries | Truncate | Reset | HardState


class Image:
    """The log's shape on disk: bounds, terms, extents, hard state. Used by one thread at a time."""

    def __init__(self, header: SegmentHeader, locations: Locations) -> None:
        self.oldest = header.sequence
        """Sequence number of the oldest segment file."""
        self.sequence = header.sequence
        """Sequence number of the newest segment file, the one written to."""
        self.position = 0
        """Length of that file."""
        self.base_index = header.base_index
        self.term = header.term
        self.vote = header.vote
        self.runs = TermRuns(header.runs)
        self.extents = Extents(header.last_index + 1, (Extent(*e) for e in header.extents))
        self._header_end = 0
        self._locate_from = 0
        self._locations = locations

    @property
    def last_index(self) -> int:
        return self.extents.end - 1

    @property
    def segment_is_empty(self) -> bool:
        return self.position == self._header_end

    def next_header(self) -> SegmentHeader:
        """Return the header of the segment that is to follow the newest one."""
        return SegmentHeader(
            version=SEGMENT_VERSION,
            sequence=self.sequence + 1,
            previous_bytes=self.position,
            base_index=self.base_index,
            last_index=self.last_index,
            term=self.term,
            vote=self.vote,
            runs=self.runs.runs(),
            extents=self.extents.all(),
        )

    def begin_segment(self, sequence: int, header_end: int) -> None:
        self.sequence = sequence
        self.position = self._header_end = header_end
        self._locate_from = 0

    def append(self, end: int, term: int, end_position: int, locations: Sequence[Location]) -> None:
        """Add entries up to `end` (exclusive), of one term, written up to `end_position`.

        `locations` are some of theirs; the first is that of the first entry.
        """
        first = locations[0]
        self.runs.append(first.entry, term)
        extent = self.extents.append(end, self.sequence, first.position, end_position)
        if len(locations) > 1 or first.position >= self._locate_from:
            self._locations.add(extent.key, locations)
            self._locate_from = locations[-1].position + LOCATION_BYTES
        self.position = end_position

    def change(self, change: Truncate | Reset | HardState, end_position: int) -> None:
        match change:
            case Truncate(from_index):
                self.extents.truncate(from_index)
                self.runs.truncate(from_index)
            case Reset(index, term):
                self.extents.reset(index + 1)
                self.runs = TermRuns([(index, term)])
                self.base_index = index
            case HardState(term, vote):
                self.term, self.vote = term, vote
        self.position = end_position

    def forget_before(self, sequence: int) -> None:
        """Take notice that the files older than `sequence` are gone, or as good as gone."""
        self.oldest = sequence
        self.extents.forget_before(sequence)
        if self.base_index < self.extents.first - 1:
            self.base_index = self.extents.first - 1
            self.runs.forget_before(self.base_index)
