"""A walk over a store, batch by batch, as recovery and the building of an index take it."""

from __future__ import annotations

from collections.abc import Callable

from .batch import Batch
from .errors import CorruptBatch
from .index import IndexEntry
from .store import Store

_CHUNK_BYTES = 1024 * 1024


class Walk:
    """Checks that batches follow each other without a gap and notes what an index should hold."""

    def __init__(self, base_offset: int, start: IndexEntry, interval_bytes: int) -> None:
        self.position = start.position
        self.next_offset = base_offset + start.relative_offset
        self.last: Batch | None = None
        self.entries: list[IndexEntry] = []
        self._base_offset = base_offset
        self._interval_bytes = interval_bytes
        self._noted_position = start.position

    def run(self, store: Store) -> None:
        """Go to the end of the store, or raise CorruptBatch with the walk standing before it."""
        for batches in store.scan(self.position, _CHUNK_BYTES):
            for batch in batches:
                self._step(store, batch)

    def run_until(self, store: Store, is_reached: Callable[[Walk], bool], chunk_bytes: int) -> None:
        """Go on until `is_reached`, or to the end, reading `chunk_bytes` at a time. Raises as `run`
        does.
        """
        if is_reached(self):
            return
        for batches in store.scan(self.position, chunk_bytes):
            for batch in batches:
                self._step(store, batch)
                if is_reached(self):
                    return

    def _step(self, store: Store, batch: Batch) -> None:
        if batch.base_offset != self.next_offset:
            reason = f"base offset {batch.base_offset} where {self.next_offset} is due"
            raise CorruptBatch(store.path, self.position, reason)
        if self.position - self._noted_position >= self._interval_bytes:
            relative_offset = batch.base_offset - self._base_offset
            self.entries.append(IndexEntry(relative_offset, self.position))
            self._noted_position = self.position
        self.position += batch.size
        self.next_offset = batch.next_offset
        self.last = batch
