"""The newest batches of all streams, in memory: what was applied but is not in its file yet, and
what tail readers want.

One byte budget for all streams; the oldest batches go first, but never one that its stream's file
does not hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from ..storage.batch import Batch


class Recent:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._order: deque[tuple[int, Batch]] = deque()
        self._streams: dict[int, deque[Batch]] = {}
        self._written: dict[int, int] = {}

    def add(self, stream_id: int, batch: Batch) -> None:
        self._streams.setdefault(stream_id, deque()).append(batch)
        self._order.append((stream_id, batch))
        self._bytes += batch.size
        self._evict()

    def written(self, stream_id: int, end_offset: int) -> None:
        """The stream's file holds everything below `end_offset`."""
        if stream_id in self._streams:
            self._written[stream_id] = end_offset
            self._evict()

    def _evict(self) -> None:
        while self._order and self._bytes > self._bytes_max:
            stream_id, batch = self._order[0]
            batches = self._streams.get(stream_id)
            if batches is not None:
                if batch.next_offset > self._written.get(stream_id, 0):
                    return
                batches.popleft()
            self._order.popleft()
            self._bytes -= batch.size

    def forget_stream(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)
        self._written.pop(stream_id, None)

    def read(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch] | None:
        """Whole batches from the one that holds `offset`, at least one; None if it is only in the
        file.
        """
        batches = self._streams.get(stream_id)
        if not batches or offset < batches[0].base_offset:
            return None
        place = bisect_right(batches, offset, key=_base_offset) - 1
        found: list[Batch] = []
        size = 0
        for at in range(place, len(batches)):
            batch = batches[at]
            size += batch.size
            if found and size > bytes_max:
                break
            found.append(batch)
        return found


def _base_offset(batch: Batch) -> int:
    return batch.base_offset
