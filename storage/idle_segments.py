"""Sealed segments that are open because somebody read them, of one log or of all of a node's.

Opening one costs more than a read does: two files, two maps, and a walk over its end. What stays
open costs four descriptors: a map has its own. The one that was used longest ago is closed first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .segment import Segment

OPEN_MAX: Final = 32


class IdleSegments:
    """By folder and base offset. No lock: logs that share it are used by one thread."""

    def __init__(self, open_max: int = OPEN_MAX) -> None:
        self._open_max = open_max
        self._segments: OrderedDict[tuple[str, int], Segment] = OrderedDict()

    def __len__(self) -> int:
        return len(self._segments)

    def get(self, folder: str, base_offset: int) -> Segment | None:
        """Return the segment if it is open; it counts as used."""
        segment = self._segments.get((folder, base_offset))
        if segment is not None:
            self._segments.move_to_end((folder, base_offset))
        return segment

    def add(self, folder: str, segment: Segment) -> None:
        """Take over an open segment, all of it synced."""
        self._segments[folder, segment.base_offset] = segment
        if len(self._segments) > self._open_max:
            _, oldest = self._segments.popitem(last=False)
            oldest.close()

    def close(self, folder: str, base_offset: int) -> None:
        """Close the segment if it is open."""
        segment = self._segments.pop((folder, base_offset), None)
        if segment is not None:
            segment.close()

    def close_all(self, folder: str) -> None:
        """Close those of one log."""
        for of, base_offset in list(self._segments):
            if of == folder:
                self.close(folder, base_offset)
