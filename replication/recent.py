"""Batches in memory, of all streams under one byte budget: the newest ones, which may not be in
their files yet and which readers at the tail want, and what was read from the files last.

Of the newest the oldest go first, but never one that its stream's file does not hold. What was read
has the room that is left, and half of the budget if it is wanted.
"""

from __future__ import annotations

from collections import deque

from ..storage.batch import Batch
from .stretches import Stretches, from_offset


class Recent:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.hits = 0
        """Reads that were answered from memory."""
        self.misses = 0
        self.swaps = 0
        """How often a file came to hold other batches than those that were read from it."""
        self._bytes = 0
        """Of the newest batches."""
        self._stretches = Stretches()
        self._order: deque[tuple[int, Batch]] = deque()
        self._streams: dict[int, deque[Batch]] = {}
        self._written: dict[int, int] = {}

    @property
    def size_bytes(self) -> int:
        return self._bytes + self._stretches.size_bytes

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
        stretches = self._stretches
        while self.size_bytes > self._bytes_max:
            is_over_half = stretches.size_bytes > self._bytes_max // 2
            if is_over_half or not self._drop_oldest():
                if not stretches.size_bytes:
                    return
                stretches.drop_oldest()

    def _drop_oldest(self) -> bool:
        """Let go of the oldest of the newest batches, if its file holds it."""
        if not self._order:
            return False
        stream_id, batch = self._order[0]
        batches = self._streams.get(stream_id)
        # It may have left its stream's before: with the stream, or for what compaction made of it.
        if batches and batches[0] is batch:
            if batch.next_offset > self._written.get(stream_id, 0):
                return False
            batches.popleft()
        self._order.popleft()
        self._bytes -= batch.size
        return True

    def keep(self, stream_id: int, batches: list[Batch], swaps: int) -> None:
        """Keep what was read from a stream's file, unless it takes more than a part of the room, or
        a file was swapped since `swaps`, which the reader took before: it may be of the old one.
        """
        if (
            batches
            and swaps == self.swaps
            and sum(batch.size for batch in batches) <= self._bytes_max // 8
        ):
            self._stretches.add(stream_id, batches)
            self._evict()

    def swapped(self, stream_id: int, end_offset: int) -> None:
        """Below `end_offset` the stream's file holds what compaction made, and no other batches
        that were in it, or came to be.
        """
        self.swaps += 1
        self._stretches.forget_stream(stream_id)
        batches = self._streams.get(stream_id)
        while batches and batches[0].next_offset <= end_offset:
            batches.popleft()

    def forget_stream(self, stream_id: int) -> None:
        self._stretches.forget_stream(stream_id)
        self._streams.pop(stream_id, None)
        self._written.pop(stream_id, None)

    def read(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch] | None:
        """Whole batches from the one that holds `offset`, at least one; None if they are only in
        the file.
        """
        found = self.newest(stream_id, offset, bytes_max)
        if found is None:
            found = self._stretches.read(stream_id, offset, bytes_max)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def newest(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch] | None:
        """As `read`, of the newest batches alone."""
        batches = self._streams.get(stream_id)
        if not batches or offset < batches[0].base_offset:
            return None
        found: list[Batch] = []
        size = 0
        for batch in from_offset(batches, offset):
            size += batch.size
            if found and size > bytes_max:
                break
            found.append(batch)
        return found
