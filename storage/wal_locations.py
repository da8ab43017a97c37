"""Sparse positions of entries in segment files; of too many, the least recently used go first."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable

from .wal_frame import LOCATION_BYTES, Location

LOCATIONS_MAX = 128 * 1024
"""Of 16 bytes each: 2 MiB, which is 4 GiB of log looked up to within LOCATION_BYTES."""


class Locations:
    """Maps an extent, named by (sequence, position) of its begin, to positions inside it.

    What it does not know costs a longer walk through the file, after which it does. Any thread.
    """

    def __init__(self, count_max: int = LOCATIONS_MAX) -> None:
        self._count_max = count_max
        self._count = 0
        self._known: OrderedDict[tuple[int, int], tuple[array[int], array[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def add(self, extent: tuple[int, int], locations: Iterable[Location]) -> None:
        """Remember those of `locations` that are LOCATION_BYTES away from all that is known."""
        with self._lock:
            indexes, positions = self._known.setdefault(extent, (array("Q"), array("Q")))
            self._known.move_to_end(extent)
            for index, position in locations:
                place = bisect_right(positions, position)
                if place and position - positions[place - 1] < LOCATION_BYTES:
                    continue
                if place < len(positions) and positions[place] - position < LOCATION_BYTES:
                    continue
                indexes.insert(place, index)
                positions.insert(place, position)
                self._count += 1
            while self._count > self._count_max and len(self._known) > 1:
                _, (forgotten, _) = self._known.popitem(last=False)
                self._count -= len(forgotten)

    def around(
        self, extent: tuple[int, int], index: int
    ) -> tuple[Location | None, Location | None]:
        """Return the last location at or before entry `index` and the first one behind it."""
        with self._lock:
            known = self._known.get(extent)
            if known is None:
                return None, None
            self._known.move_to_end(extent)
            indexes, positions = known
            place = bisect_right(indexes, index)
            before = Location(indexes[place - 1], positions[place - 1]) if place else None
            behind = Location(indexes[place], positions[place]) if place < len(indexes) else None
            return before, behind
