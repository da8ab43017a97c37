"""Stretches of batches that were read from the streams' files, kept for who reads there next.

A stretch is what one read returned; the one that was used longest ago goes first. What is in here
was checked when it was read.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..storage.batch import Batch


class _Stretch(NamedTuple):
    batches: list[Batch]
    size_bytes: int


class Stretches:
    """By stream id and first offset; `Recent` says how much room there is."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._stretches: OrderedDict[tuple[int, int], _Stretch] = OrderedDict()
        self._offsets: defaultdict[int, list[int]] = defaultdict(list)
        """First offsets, ascending, by stream id."""

    def add(self, stream_id: int, batches: list[Batch]) -> None:
        """Keep what a read returned, in the place of what began at the same offset."""
        place = stream_id, batches[0].base_offset
        self._forget(place)
        stretch = _Stretch(batches, sum(batch.size for batch in batches))
        self._stretches[place] = stretch
        insort(self._offsets[stream_id], place[1])
        self.size_bytes += stretch.size_bytes

    def read(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch] | None:
        """Return whole batches from the one that holds `offset`, across stretches that follow each
        other; None where less than half of `bytes_max` is here: a read from the file gives more.
        """
        found: list[Batch] = []
        room = bytes_max
        while room > 0 and (place := self._covering(stream_id, offset)) is not None:
            self._stretches.move_to_end(place)
            batches = self._stretches[place].batches
            for batch in from_offset(batches, offset):
                room -= batch.size
                if room < 0 and found:
                    return found
                found.append(batch)
            offset = batches[-1].next_offset
        return found if found and room <= bytes_max // 2 else None

    def drop_oldest(self) -> None:
        self._forget(next(iter(self._stretches)))

    def forget_stream(self, stream_id: int) -> None:
        for offset in self._offsets.pop(stream_id, []):
            self.size_bytes -= self._stretches.pop((stream_id, offset)).size_bytes

    def _covering(self, stream_id: int, offset: int) -> tuple[int, int] | None:
        offsets = self._offsets.get(stream_id, [])
        number = bisect_right(offsets, offset) - 1
        if number < 0:
            return None
        place = stream_id, offsets[number]
        return place if offset < self._stretches[place].batches[-1].next_offset else None

    def _forget(self, place: tuple[int, int]) -> None:
        stretch = self._stretches.pop(place, None)
        if stretch is not None:
            self.size_bytes -= stretch.size_bytes
            offsets = self._offsets[place[0]]
            del offsets[bisect_right(offsets, place[1]) - 1]
            if not offsets:
                del self._offsets[place[0]]


def from_offset(batches: Sequence[Batch], offset: int) -> Iterator[Batch]:
    """Yield the batch that holds `offset`, and those behind it."""
    first = bisect_right(batches, offset, key=lambda batch: batch.base_offset) - 1
    for number in range(first, len(batches)):
        yield batches[number]
