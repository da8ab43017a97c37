"""Where the live entries are: stretches of consecutive entries in one segment file each.

Entries 1 … 100 in file 1, 101 … 199 in file 2, then there TRUNCATE 90, then 90 … 150 in file 3:

    Extent(first=1,  sequence=1)    holds 1 … 89, because the next one begins at 90
    Extent(first=90, sequence=3)    holds 90 … 150

so what was truncated cannot be found any more, whichever file it is in. Appending stretches the
last extent until a truncation or a new file begins another one: there are about as many extents as
files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from .wal_frame import Location
from .wal_locations import Locations


@dataclass(slots=True)
class Extent:
    first: int
    sequence: int
    position: int
    end_position: int
    """The last entry's frame ends here, or below if the extent was truncated."""

    @property
    def key(self) -> tuple[int, int]:
        return self.sequence, self.position


@dataclass(frozen=True, slots=True)
class Piece:
    """Entries [start, end) of one extent and the nearest known place to look for them from."""

    extent: tuple[int, int]
    start: int
    end: int
    nearest: Location

    @property
    def sequence(self) -> int:
        return self.extent[0]


_first_of = attrgetter("first")


class Extents:
    """The extents of a log in order of their entries, dense up to `end` (exclusive)."""

    def __init__(self, end: int, extents: Iterable[Extent] = ()) -> None:
        self.end = end
        self._extents = list(extents)
        self._growing = False

    @property
    def first(self) -> int:
        """The oldest entry there is; `end` if there is none."""
        return self._extents[0].first if self._extents else self.end

    def all(self) -> tuple[tuple[int, int, int, int], ...]:
        return tuple((e.first, e.sequence, e.position, e.end_position) for e in self._extents)

    def append(self, end: int, sequence: int, position: int, end_position: int) -> Extent:
        """Add entries `self.end` … `end - 1`, written to [position, end_position) of a file."""
        extents = self._extents
        if self._growing and extents[-1].sequence == sequence:
            extents[-1].end_position = end_position
        else:
            extents.append(Extent(self.end, sequence, position, end_position))
            self._growing = True
        self.end = end
        return extents[-1]

    def truncate(self, from_index: int) -> None:
        while self._extents and self._extents[-1].first >= from_index:
            del self._extents[-1]
        self.end = from_index
        self._growing = False

    def reset(self, end: int) -> None:
        self._extents.clear()
        self.end = end
        self._growing = False

    def sequence_holding(self, index: int) -> int | None:
        """Return the oldest file with an entry ≥ `index`; None if no file has one."""
        if index >= self.end or not self._extents:
            return None
        place = bisect_right(self._extents, index, key=_first_of) - 1
        return self._extents[max(place, 0)].sequence

    def forget_before(self, sequence: int) -> None:
        """Forget what lies in files older than `sequence`."""
        count = 0
        while count < len(self._extents) and self._extents[count].sequence < sequence:
            count += 1
        if count:
            del self._extents[:count]
            self._growing = self._growing and bool(self._extents)

    def pieces(self, start: int, end: int, bytes_max: int, locations: Locations) -> list[Piece]:
        """Plan a read of entries [start, end), of about `bytes_max` and never of nothing."""
        pieces: list[Piece] = []
        planned = 0
        for extent, extent_end in self._between(start, end):
            low, high = max(start, extent.first), min(end, extent_end)
            before, _ = locations.around(extent.key, low)
            nearest = before or Location(extent.first, extent.position)
            pieces.append(Piece(extent.key, low, high, nearest))
            planned += self._bytes(extent, extent_end, low, high, locations)
            if planned >= bytes_max:
                break
        return pieces

    def bytes_between(self, start: int, end: int, locations: Locations) -> int:
        """Return about how many bytes the frames of entries [start, end) take."""
        return sum(
            self._bytes(
                extent, extent_end, max(start, extent.first), min(end, extent_end), locations
            )
            for extent, extent_end in self._between(start, end)
        )

    def _between(self, start: int, end: int) -> Iterator[tuple[Extent, int]]:
        """Yield the extents that hold any of [start, end), each with its own end."""
        extents = self._extents
        place = max(bisect_right(extents, start, key=_first_of) - 1, 0)
        while place < len(extents) and extents[place].first < end:
            behind = extents[place + 1].first if place + 1 < len(extents) else self.end
            yield extents[place], behind
            place += 1

    def _bytes(
        self, extent: Extent, extent_end: int, start: int, end: int, locations: Locations
    ) -> int:
        low = _position_of(extent, extent_end, start, locations)
        return _position_of(extent, extent_end, end, locations) - low


def _position_of(extent: Extent, extent_end: int, index: int, locations: Locations) -> int:
    """Return about where entry `index` begins: in proportion between the known places around it."""
    if index >= extent_end:
        return extent.end_position
    before, behind = locations.around(extent.key, index)
    low = before or Location(extent.first, extent.position)
    if behind is None or behind.entry > extent_end:
        behind = Location(extent_end, extent.end_position)
    share = (index - low.entry) / (behind.entry - low.entry)
    return low.position + round((behind.position - low.position) * share)
