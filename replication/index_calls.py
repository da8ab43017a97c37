"""What a replica does for secondary indexes: definitions, searches, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ..storage.batch import Batch
from ..storage.record import StoredRecord
from .commands import CreateIndex, DropIndex
from .cursors import unpack_cursor
from .group_calls import GroupCalls
from .indexes import IndexInfo
from .machine import unknown_index
from .search import FilterCounts
from .search_terms import Asked
from .searches import Searches
from .stream import Stream
from .types import SearchResult

T = TypeVar("T")


class IndexCalls(GroupCalls):
    """The part of a replica that indexes use."""

    # ---- definitions

    async def create_index(
        self, stream: str, name: str, kind: str, on: str, *, timeout_s: float
    ) -> tuple[IndexInfo, bool]:
        """Give the stream an index, or this one another definition; True if there was none of that
        name. Raises what `Replica.append` raises, UnknownStream, TooManyIndexes.
        """
        command = CreateIndex(stream, name, kind, on, self._runtime.wall_ms())
        definition, created = await self._submit(command, 0, timeout_s)
        return self._indexer.describe(stream, name, definition), created

    async def drop_index(self, stream: str, name: str, *, timeout_s: float) -> None:
        """Raises UnknownStream, UnknownIndex and what `Replica.append` raises."""
        await self._submit(DropIndex(stream, name, self._runtime.wall_ms()), 0, timeout_s)

    def index(self, stream: str, name: str) -> IndexInfo:
        """An index as this node has it. UnknownStream, UnknownIndex."""
        found = self._stream(stream)
        if name not in found.indexes:
            raise unknown_index(stream, name)
        return self._indexer.describe(stream, name, found.indexes[name])

    def indexes(self, stream: str) -> list[IndexInfo]:
        """All of a stream's. UnknownStream."""
        found = self._stream(stream)
        return [
            self._indexer.describe(stream, name, found.indexes[name])
            for name in sorted(found.indexes)
        ]

    def all_indexes(self) -> list[tuple[str, IndexInfo]]:
        """Those of all streams, also before this node has caught up."""
        return [
            (stream.name, self._indexer.describe(stream.name, name, definition))
            for stream in self._machine.streams.values()
            for name, definition in stream.indexes.items()
        ]

    # ---- searches

    @property
    def filter_counts(self) -> FilterCounts:
        return self._searches().counts

    def _searches(self) -> Searches:
        """Those of the indexer that runs now: another one after a snapshot."""
        if self._made is None or self._made[0] is not self._indexer:
            self._made = (self._indexer, Searches(self._indexer, self))
        return self._made[1]

    _made: tuple[object, Searches] | None = None

    @staticmethod
    def cursor_index(cursor: str) -> int:
        """What has to be applied before a search can go on there. BadSearch."""
        return unpack_cursor(cursor).applied_index

    async def search(
        self,
        stream: str,
        index: str,
        asked: Asked,
        *,
        limit: int,
        bytes_max: int,
        cursor: str | None = None,
    ) -> SearchResult:
        """One page of the records that an index finds, of a committed prefix like `read`.

        Raises UnknownStream, UnknownIndex, BadSearch, NotReady.
        """
        found, applied_index = self._stream(stream), self.applied_index
        high_watermark = found.next_offset
        records, next_cursor = await self._searches().search(
            found,
            index,
            asked,
            limit=limit,
            bytes_max=bytes_max,
            cursor=cursor,
            applied_index=applied_index,
        )
        return SearchResult(
            records,
            next_cursor,
            self.index(stream, index).coverage,
            found.log_start_offset,
            high_watermark,
            applied_index,
            self.term,
            self.lag_ms,
        )

    async def newest(self, stream: str, key: bytes, as_of: int | None = None) -> StoredRecord:
        """The newest record of the key, at or below offset `as_of`; a tombstone is none.

        Raises UnknownStream, UnknownKey, OffsetTrimmed, NotReady.
        """
        return await self._searches().newest(self._stream(stream), key, as_of)

    async def skip_absent(self, stream: str, key: bytes, offset: int) -> int:
        """The first offset from `offset` on that may have a record of the key. UnknownStream."""
        return await self._searches().skip_absent(self._stream(stream), key, offset)

    async def skip_absent_down(self, stream: str, key: bytes, start: int, top: int) -> int:
        """The end, at most `top`, below which there may be a record of the key above `start`, by
        the filters. UnknownStream.
        """
        return await self._searches().skip_absent_down(self._stream(stream), key, start, top)

    # ---- what a search awaits

    async def batches(self, stream: Stream, offset: int, bytes_max: int) -> list[Batch]:
        return await self._batches(stream, offset, bytes_max)

    async def run(self, job: Callable[[], T]) -> T:
        return await self._on_streams_lane(job)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
