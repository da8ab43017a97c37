"""Searches and look-ups of keys on one node: which index, which filters, which cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..storage.index_values import Source, source_of
from ..storage.record import StoredRecord
from ..storage.value_index import Hit
from . import upstream
from .cursors import Cursor, pack_cursor, unpack_cursor
from .errors import BadSearch, NotReady, OffsetTrimmed, UnknownKey
from .index_contents import FilterContent, find_source
from .index_files import KEY
from .indexer import Indexer
from .indexes import BLOOM, BTREE, IndexDefinition
from .machine import unknown_index
from .search import FilterCounts, Page, Reader, Search
from .search_terms import Asked, Terms
from .stream import Stream
from .types import NoRecord

NEWEST_S: Final = 10.0
"""Longest look for a key without an index on keys."""
_KEYS: Final = source_of(KEY)
_BTREE_KEY: Final = (BTREE, KEY)


class Searches:
    def __init__(self, indexer: Indexer, reader: Reader) -> None:
        self.counts = FilterCounts()
        self._indexer = indexer
        self._reader = reader

    async def search(
        self,
        stream: Stream,
        index: str,
        asked: Asked,
        *,
        limit: int,
        bytes_max: int,
        cursor: str | None,
        applied_index: int,
    ) -> tuple[list[StoredRecord], str | None]:
        """One page of the records that the index finds, and the cursor of the next.

        Raises UnknownIndex, UnknownStream, BadSearch, NotReady.
        """
        definition = _definition(stream, index)
        source = find_source(definition.on)
        terms = Terms(asked, source)
        if definition.kind == BLOOM and terms.point is None:
            raise BadSearch("eq: a bloom index finds nothing else", field="eq")
        at = None if cursor is None else _checked(unpack_cursor(cursor), stream, definition, asked)
        search = self._of_index(stream, definition, terms, source, Page(limit, bytes_max))
        position: int | Hit | None
        if terms.point is None:
            position = await search.by_value(at.hit if at is not None else None)
        elif asked.is_descending:
            position = await search.down(at.offset if at is not None else stream.next_offset)
        else:
            position = await search.up(at.offset if at is not None else 0)
        if position is None:
            return search.page.records, None
        digest = asked.digest()
        next_cursor = pack_cursor(stream.id, definition.id, digest, applied_index, position)
        return search.page.records, next_cursor

    async def newest(self, stream: Stream, key: bytes, as_of: int | None) -> StoredRecord:
        """The newest record of the key, at or below offset `as_of`.

        A tombstone counts as none: it is there only until compaction removes it. Raises UnknownKey,
        OffsetTrimmed if everything up to `as_of` was, NotReady if there is no index and it took too
        long; the filters that it has others build then make it shorter.
        """
        if as_of is not None and as_of < stream.log_start_offset:
            raise OffsetTrimmed(
                f"offset {as_of} was trimmed",
                log_start_offset=stream.log_start_offset,
                high_watermark=stream.next_offset,
            )
        deadline = upstream.now() + NEWEST_S
        top: int | None = stream.next_offset
        if as_of is not None:
            top = min(stream.next_offset, as_of + 1)
        while top is not None:
            search = self._for_key(stream, key, tree=self._key_index(stream))
            top = await search.down(top)
            if search.page.records:
                return _kept(search.page.records[0])
            if upstream.now() > deadline:
                raise NotReady("no record of the key yet; with a btree index on key it is found")
        raise UnknownKey("no record has this key")

    async def skip_absent(self, stream: Stream, key: bytes, offset: int) -> int:
        """The first offset from `offset` on that may have a record of the key, by the filters."""
        if not stream.log_start_offset <= offset < stream.next_offset:
            return offset
        return await self._for_key(stream, key, tree=None).skip_up(offset)

    async def first_broken(self, stream: Stream, condition: NoRecord) -> int | None:
        """The offset of the first record that breaks the condition, None if it holds.

        Raises UnknownIndex, BadSearch, OffsetTrimmed if records that it speaks of are gone.
        """
        at: int | None = condition.after + 1
        while at is not None:
            if at < stream.log_start_offset:
                raise OffsetTrimmed(
                    f"whether there was such a record from offset {at} on is not known any more",
                    log_start_offset=stream.log_start_offset,
                    high_watermark=stream.next_offset,
                )
            search = self._for_condition(stream, condition)
            at = await search.up(at)
            if search.page.records:
                return search.page.records[0].offset
        return None

    def accepts(self, stream: Stream, condition: NoRecord) -> Callable[[StoredRecord], bool]:
        """Whether a record is one that the condition speaks of. UnknownIndex, BadSearch."""
        source, terms = self._asked_by(stream, condition)

        def accept(record: StoredRecord) -> bool:
            value = source.find(record)
            return value is not None and terms.accept(value)

        return accept

    def _asked_by(self, stream: Stream, condition: NoRecord) -> tuple[Source, Terms]:
        source = _KEYS
        if condition.index is not None:
            source = find_source(_definition(stream, condition.index).on)
        return source, Terms(Asked(eq=condition.value), source)

    def _for_condition(self, stream: Stream, condition: NoRecord) -> Search:
        if condition.index is None:
            return self._for_key(stream, condition.value, tree=self._key_index(stream))
        definition = _definition(stream, condition.index)
        source, terms = self._asked_by(stream, condition)
        return self._of_index(stream, definition, terms, source, Page(1, 1))

    def _of_index(
        self, stream: Stream, index: IndexDefinition, terms: Terms, source: Source, page: Page
    ) -> Search:
        is_tree = index.kind != BLOOM
        return Search(
            stream,
            terms,
            source.find,
            self._reader,
            tree=self._indexer.tree(stream, index.id) if is_tree else None,
            filters=None if is_tree else self._indexer.filters(stream, index.id),
            files=self._indexer.files,
            counts=self.counts,
            page=page,
            hurry=self._indexer.hurry,
        )

    async def skip_absent_down(self, stream: Stream, key: bytes, start: int, top: int) -> int:
        """The end, at most `top`, below which there may be a record of the key above `start`."""
        if not stream.log_start_offset <= start < top <= stream.next_offset:
            return top
        return (await self._for_key(stream, key, tree=None).skip_down(start, top))[0]

    def _for_key(self, stream: Stream, key: bytes, tree: IndexDefinition | None) -> Search:
        return Search(
            stream,
            Terms(Asked(eq=key, is_descending=True), _KEYS),
            _KEYS.find,
            self._reader,
            tree=self._indexer.tree(stream, tree.id) if tree is not None else None,
            filters=self._key_filters(stream),
            files=self._indexer.files,
            counts=self.counts,
            page=Page(1, 1),
            hurry=self._indexer.hurry,
        )

    def _key_index(self, stream: Stream) -> IndexDefinition | None:
        """A btree index on key, the one that has caught up best if there are several."""
        found = [index for index in stream.indexes.values() if (index.kind, index.on) == _BTREE_KEY]
        return max(found, key=lambda index: self._through(stream, index), default=None)

    def _through(self, stream: Stream, index: IndexDefinition) -> int:
        tree = self._indexer.tree(stream, index.id)
        return tree.through if tree is not None and tree.tree is not None else -1

    def _key_filters(self, stream: Stream) -> FilterContent | None:
        """Those of a bloom index on key, or its own; a stream of one segment needs none."""
        if len(stream.segments) < 2:
            return None
        for index in stream.indexes.values():
            found = self._indexer.filters(stream, index.id)
            if found is not None and index.on == KEY:
                return found
        return self._indexer.key_filters(stream)


def _definition(stream: Stream, index: str) -> IndexDefinition:
    """Raises UnknownIndex."""
    definition = stream.indexes.get(index)
    if definition is None:
        raise unknown_index(stream.name, index)
    return definition


def _kept(record: StoredRecord) -> StoredRecord:
    if record.value is None:
        raise UnknownKey("the key was deleted", deleted_at=record.offset)
    return record


def _checked(cursor: Cursor, stream: Stream, index: IndexDefinition, asked: Asked) -> Cursor:
    if cursor.stream_id != stream.id or cursor.index_id != index.id:
        raise BadSearch("cursor: the index has been defined anew since", field="cursor")
    if cursor.digest != asked.digest():
        raise BadSearch("cursor: it belongs to another search", field="cursor")
    return cursor
