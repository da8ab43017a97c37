"""A segment: a store, and the offset index that finds things in it, from a base offset on.

- Batches lie without a gap: each begins at the offset where the one before it ended, the first one
  at the segment's base offset.
- The index only ever holds hints. A read that a hint leads astray builds it anew and reads again.
- What a segment returns was checked when it was read, however often it was before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .batch import CHAIN_START, Batch
from .errors import CorruptBatch, Damaged
from .filesystem import FileSystem
from .index import START, IndexEntry, OffsetIndex
from .names import index_path, store_path
from .store import Store
from .walk import Walk

_logger = logging.getLogger(__name__)


class Segment:
    """One segment, open."""

    def __init__(self, base_offset: int, store: Store, index: OffsetIndex, interval: int) -> None:
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.last: Batch | None = None
        """The newest batch's header: its `data` has no body."""
        self.last_digest = CHAIN_START
        """The newest batch's digest."""
        self._store = store
        self._index = index
        self._interval_bytes = interval

    @classmethod
    def create(cls, files: FileSystem, folder: str, base_offset: int, interval: int) -> Segment:
        store = Store.create(files, store_path(folder, base_offset))
        index = OffsetIndex(files, index_path(folder, base_offset), interval)
        return cls(base_offset, store, index, interval)

    @classmethod
    def open(
        cls,
        files: FileSystem,
        folder: str,
        base_offset: int,
        interval: int,
        *,
        next_offset: int,
    ) -> Segment:
        """Open a durable segment whose file has the right length and must end at `next_offset`.

        Reads only what lies behind the newest index entry. Raises Damaged if the end is not there.
        """
        store = Store.open(files, store_path(folder, base_offset), is_durable=True)
        segment = cls._with_index(files, folder, base_offset, interval, store)
        try:
            segment._find_end(next_offset)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def adopt(
        cls,
        files: FileSystem,
        folder: str,
        base_offset: int,
        interval: int,
        *,
        store: Store,
        walk: Walk,
    ) -> Segment:
        """Open a segment whose `store` was walked from its beginning to its end."""
        segment = cls._with_index(files, folder, base_offset, interval, store)
        try:
            segment._check_index(walk)
            segment._end_at(walk)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def _with_index(
        cls, files: FileSystem, folder: str, base_offset: int, interval: int, store: Store
    ) -> Segment:
        path = index_path(folder, base_offset)
        try:
            index = OffsetIndex.open(files, path, interval, store_size=store.size)
        except BaseException:
            store.close()
            raise
        return cls(base_offset, store, index, interval)

    @property
    def path(self) -> str:
        return self._store.path

    @property
    def size(self) -> int:
        """Bytes of the store."""
        return self._store.size

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches that follow each other and the segment's end; in one write."""
        position = self._store.size
        self._store.append([batch.data for batch in batches])
        for batch in batches:
            self._index.add(batch.base_offset - self.base_offset, position)
            position += batch.size
        self.next_offset = batches[-1].next_offset
        self.last = batches[-1].header_only()
        self.last_digest = batches[-1].digest()

    def read(self, offset: int, bytes_max: int, *, at_least_one: bool) -> list[Batch]:
        """Return batches from the one that holds `offset`, up to `bytes_max` or the segment's end.

        The first is returned whatever its size if `at_least_one`. Raises Damaged.
        """
        assert self.base_offset <= offset < self.next_offset
        hint = self._index.find(offset - self.base_offset)
        try:
            return self._read(hint, offset, bytes_max, at_least_one=at_least_one)
        except CorruptBatch as error:
            if hint == START:
                raise self._damaged(error) from error
        # The hint or the store: a walk over the store raises Damaged, or clears it.
        self._replace_index(self._walk_all(), "an entry leads astray")
        hint = self._index.find(offset - self.base_offset)
        try:
            return self._read(hint, offset, bytes_max, at_least_one=at_least_one)
        except CorruptBatch as error:
            raise self._damaged(error) from error

    def seal(self) -> None:
        """Make the index final; nothing will be appended."""
        self._index.seal()

    def sync(self) -> None:
        """Make every batch durable."""
        self._store.sync()

    def close(self) -> None:
        try:
            self._index.close()
        finally:
            self._store.close()

    def _read(
        self, hint: IndexEntry, offset: int, bytes_max: int, *, at_least_one: bool
    ) -> list[Batch]:
        position = hint.position
        due_offset = self.base_offset + hint.relative_offset
        found: list[Batch] = []
        room = bytes_max
        # From a hint it is less than an interval to the batch wanted: the first chunk that holds
        # this batch holds all the others that fit into bytes_max.
        for batches in self._store.scan(position, max(bytes_max, 0) + self._interval_bytes):
            for batch in batches:
                if batch.base_offset != due_offset:
                    reason = f"base offset {batch.base_offset} where {due_offset} is due"
                    raise CorruptBatch(self.path, position, reason)
                due_offset = batch.next_offset
                position += batch.size
                if due_offset <= offset:
                    continue
                if batch.size > room and (found or not at_least_one):
                    return found
                found.append(batch)
                room -= batch.size
            if found:
                return found
        raise CorruptBatch(self.path, position, f"ends where offset {due_offset} is due")

    def _find_end(self, next_offset: int) -> None:
        """Walk from the newest index entry to the end, from the beginning if that leads astray."""
        if self._index.last() != START:
            walk = Walk(self.base_offset, self._index.last(), self._interval_bytes)
            try:
                walk.run(self._store)
            except CorruptBatch:
                walk.next_offset = -1
            if walk.next_offset == next_offset:
                for entry in walk.entries:
                    self._index.add(*entry)
                self._end_at(walk)
                return
        walk = self._walk_all()
        if walk.next_offset != next_offset:
            reason = f"ends at offset {walk.next_offset} where {next_offset} is due"
            raise Damaged(self.path, walk.position, reason)
        self._check_index(walk)
        self._end_at(walk)

    def _walk_all(self) -> Walk:
        walk = Walk(self.base_offset, START, self._interval_bytes)
        try:
            walk.run(self._store)
        except CorruptBatch as error:
            raise self._damaged(error) from error
        return walk

    def _check_index(self, walk: Walk) -> None:
        """Compare the index with what a walk over the whole store found."""
        found = self._index.entries()
        if found == walk.entries:
            return
        if found and found == walk.entries[: len(found)]:
            # Only behind: its newest page did not reach the disk before a crash.
            self._index.replace(walk.entries)
        else:
            reason = "missing or empty" if not found else "not what the store holds"
            self._replace_index(walk, self._index.doubt or reason)

    def _replace_index(self, walk: Walk, reason: str) -> None:
        facts = {"path": self._index.path, "reason": reason}
        _logger.warning("offset index rebuilt", extra=facts)
        self._index.replace(walk.entries)

    def _end_at(self, walk: Walk) -> None:
        self.next_offset = walk.next_offset
        if walk.last is not None:
            self.last = walk.last.header_only()
            self.last_digest = walk.last.digest()

    def _damaged(self, error: CorruptBatch) -> Damaged:
        return Damaged(self.path, error.position, error.reason)
