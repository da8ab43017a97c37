"""A segment: a store, and the offset index that finds things in it, from a base offset on.

- Batches lie without a gap: each begins at the offset where the one before it ended, the first one
  at the segment's base offset.
- The index only ever holds hints. A read that a hint leads astray builds it anew and reads again.
- What a segment returns was checked when it was read, however often it was before.
- A batch is written again only where it was damaged, and with the bytes it had.
"""

from __future__ import annotations

from collections.abc import Sequence

from .batch import CHAIN_START, Batch
from .errors import BadCopy, CorruptBatch, DamagedBatch
from .filesystem import FileSystem
from .guide import Guide
from .index import START, IndexEntry, OffsetIndex
from .mending import Gap, differing
from .names import SegmentName, index_path, store_path, time_index_path
from .store import Store
from .times import Times
from .walk import Walk


class Segment:
    """One segment, open."""

    def __init__(
        self,
        files: FileSystem,
        folder: str,
        name: SegmentName,
        interval: int,
        store: Store,
        index: OffsetIndex,
    ) -> None:
        base_offset = name.base_offset
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.last: Batch | None = None
        """The newest batch's header: its `data` has no body."""
        self.last_digest = CHAIN_START
        """The newest batch's digest."""
        self.damage: DamagedBatch | None = None
        """Why the end could not be read; `last` is unknown then."""
        self._store = store
        self._index = index
        self._guide = Guide(store, index, base_offset, interval)
        times_path = time_index_path(folder, *name)
        self._times = Times(files, times_path, self._guide, base_offset, interval)
        self._interval_bytes = interval

    @classmethod
    def create(cls, files: FileSystem, folder: str, base_offset: int, interval: int) -> Segment:
        store = Store.create(files, store_path(folder, base_offset))
        index = OffsetIndex(files, index_path(folder, base_offset), interval)
        segment = cls(files, folder, SegmentName(base_offset), interval, store, index)
        segment._times.begin()
        return segment

    @classmethod
    def open(
        cls,
        files: FileSystem,
        folder: str,
        name: SegmentName,
        interval: int,
        *,
        next_offset: int,
        tolerates_damage: bool = False,
    ) -> Segment:
        """Open a durable segment whose file has the right length and must end at `next_offset`.

        Reads only what lies behind the newest index entry. If the end is not there, raises
        DamagedBatch or says so in `damage`.
        """
        store = Store.open(files, store_path(folder, *name), is_durable=True)
        segment = cls._with_index(files, folder, name, interval, store)
        try:
            segment._find_end(next_offset)
        except DamagedBatch as damage:
            if not tolerates_damage:
                segment.close()
                raise
            segment.next_offset, segment.damage = next_offset, damage
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def adopt(
        cls,
        files: FileSystem,
        folder: str,
        name: SegmentName,
        interval: int,
        *,
        store: Store,
        walk: Walk,
    ) -> Segment:
        """Open a segment whose `store` was walked from its beginning to its end."""
        segment = cls._with_index(files, folder, name, interval, store)
        try:
            segment._guide.check_index(walk)
            segment._end_at(walk)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def _with_index(
        cls, files: FileSystem, folder: str, name: SegmentName, interval: int, store: Store
    ) -> Segment:
        path = index_path(folder, *name)
        try:
            index = OffsetIndex.open(files, path, interval, store_size=store.size)
        except BaseException:
            store.close()
            raise
        return cls(files, folder, name, interval, store, index)

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
            self._times.add(position, batch)
            position += batch.size
        self.next_offset = batches[-1].next_offset
        self.last = batches[-1].header_only()
        self.last_digest = batches[-1].digest()

    def read(self, offset: int, bytes_max: int, *, at_least_one: bool) -> list[Batch]:
        """Return batches from the one that holds `offset`, up to `bytes_max` or the segment's end.

        The first is returned whatever its size if `at_least_one`. Raises DamagedBatch.
        """
        assert self.base_offset <= offset < self.next_offset

        def read(hint: IndexEntry) -> list[Batch]:
            return self._read(hint, offset, bytes_max, at_least_one=at_least_one)

        return self._guide.from_offset(offset, read)

    def find_timestamp(self, timestamp: int) -> int | None:
        """Return the base offset of the first batch with a record at or after `timestamp` (ms).

        None if there is none. Raises DamagedBatch.
        """
        return self._times.find(timestamp, self.last_digest)

    def max_timestamp(self) -> int:
        """Return the largest timestamp of all records (ms); raises DamagedBatch."""
        return self._times.max_timestamp(self.last_digest)

    def check(self, position: int, length: int) -> None:
        """Check all batches that reach into [position, position + length); raises DamagedBatch."""
        end = min(position + length, self.size)

        def check(hint: IndexEntry) -> None:
            self._guide.walk(hint, lambda walk: walk.position >= end)

        self._guide.from_position(position, check)

    def distrust(self, offset: int, reason: str) -> DamagedBatch:
        """Return that the batch at `offset`, readable or not, is not the right one.

        Raises DamagedBatch if there is damage before it.
        """
        position, _ = self._guide.locate(offset)
        return self._damaged(position, reason, offset)

    def mend(
        self, batches: Sequence[Batch], chain: bytes | None, digest: bytes | None = None
    ) -> int:
        """Write copies of batches over damaged ones, and return how many bytes were not the same.

        `chain` is what the first batch of this segment carries, `digest` that of its last batch;
        None if that is unknown. `sync` makes it durable. Raises BadCopy, or DamagedBatch if
        something before them must be mended first or the disk refuses; nothing is worse then than
        it was.
        """
        try:
            position, before = self._guide.locate(batches[0].base_offset)
        except ValueError as error:
            raise BadCopy(str(error)) from error
        gap = Gap(position, self.next_offset, before or chain, digest)
        gap.check(batches, self._store)
        written = 0
        for start, buffers in list(differing(batches, position, self._store)):
            try:
                self._store.overwrite(start, buffers)
            except OSError as error:
                reason = f"cannot be overwritten: {error}"
                raise self._damaged(position, reason, batches[0].base_offset) from error
            written += sum(map(len, buffers))
        return written

    def settle(self) -> None:
        """After mending: find the end, if it was unknown, and complete the index."""
        if self.damage is None:
            return
        try:
            walk = self._guide.walk_all()
        except DamagedBatch as damage:
            self.damage = damage
            return
        if walk.next_offset == self.next_offset:
            self.damage = None
            self._guide.check_index(walk)
            self._end_at(walk)

    def seal(self) -> None:
        """Make the index final; nothing will be appended."""
        self._index.seal()
        self._times.seal(self.last_digest)

    def sync(self) -> None:
        """Make every batch durable."""
        self._store.sync()

    def close(self) -> None:
        self._times.close()
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
        # From a hint it is less than an interval to the batch wanted, which ends before the next
        # hint: the first chunk holds this batch, and all the others that fit into bytes_max.
        chunk_bytes = max(max(bytes_max, 0) + self._interval_bytes, self._guide.stride(hint))
        try:
            for batches in self._store.scan(position, chunk_bytes):
                for batch in batches:
                    if batch.base_offset != due_offset:
                        reason = f"base offset {batch.base_offset} where {due_offset} is due"
                        raise self._damaged(position, reason, due_offset)
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
        except CorruptBatch as error:
            raise self._guide.damaged(error, due_offset) from error
        raise self._damaged(position, f"ends where offset {due_offset} is due", due_offset)

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
        walk = self._guide.walk_all()
        if walk.next_offset != next_offset:
            reason = f"ends at offset {walk.next_offset} where {next_offset} is due"
            raise self._damaged(walk.position, reason, walk.next_offset)
        self._guide.check_index(walk)
        self._end_at(walk)

    def _end_at(self, walk: Walk) -> None:
        self.next_offset = walk.next_offset
        if walk.last is not None:
            self.last = walk.last.header_only()
            self.last_digest = walk.last.digest()

    def _damaged(self, position: int, reason: str, offset: int) -> DamagedBatch:
        return self._guide.damaged(CorruptBatch(self.path, position, reason), offset)
