"""Finding records by value: what the index covers, and a scan of what it does not.

An index is a hint: every hit is looked up and checked against its record, so what is stale in it
(trimmed, compacted away, cut) does no harm. What it does not cover yet is read; so an answer is
right while it is being built, and newest records are never missing.

    eq              by offset, ascending or descending: index, then scan, or the other way round
    ge, lt, prefix  by value, ties by offset: the index's order merged with the scan's, so the scan
                    has to be whole; if it would be too long, NotReady

A page ends with `limit` records, or when it has cost enough: it may then be short, even empty, and
its cursor goes on from there. No cursor: nothing more. Everything awaits only what `Reader` offers,
so a simulator can drive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from ..storage.index_values import Find, encode
from ..storage.record import StoredRecord
from ..storage.value_index import BadIndex, Found, Hit
from .errors import NotReady, OffsetTrimmed, unknown_stream
from .filter_content import FilterContent
from .index_contents import TreeContent
from .index_files import IndexFiles
from .search_parts import (
    ON_LOOP_BYTES,
    Fetched,
    FilterCounts,
    Page,
    Part,
    Reader,
    matches,
    size_of,
)
from .search_terms import Terms
from .stream import Stream

T = TypeVar("T")

SCAN_BYTES: Final = 8 << 20
"""Read at most, about, for one page of a scan."""
TAIL_RECORDS_MAX: Final = 20_000
"""Not covered by an index whose answers are in order of value."""
TAIL_WAIT_S: Final = 2.0
TAIL_LOOK_S: Final = 0.02
VISITS_MAX: Final = 20_000
_PIECE_BYTES: Final = 256 << 10
_DOWN_RECORDS: Final = 1_000
"""Looked at at once where a scan goes down; more, while these are small."""
_FILTERS_A_JOB: Final = 8


class Search:
    """One page of one search on one stream."""

    def __init__(
        self,
        stream: Stream,
        terms: Terms,
        find: Find,
        reader: Reader,
        *,
        tree: TreeContent | None,
        filters: FilterContent | None,
        files: IndexFiles,
        counts: FilterCounts,
        page: Page,
        hurry: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.page = page
        self._terms = terms
        self._find = find
        self._reader = reader
        self._tree = tree
        self._filters = filters
        self._files = files
        self._counts = counts
        self._hurry = hurry
        self._end = stream.next_offset
        self._left_bytes = SCAN_BYTES
        self._fetched = Fetched(stream, reader)
        self._stride = _DOWN_RECORDS
        self._maybe: set[int] = set()
        """Base offsets of segments that no filter could rule out."""

    # ---- by offset

    async def up(self, start: int) -> int | None:
        """Fill the page from offset `start` on; where to go on."""
        at = max(start, self.stream.log_start_offset)
        low, high = self._terms.span()
        found = await self._look_up(low + at.to_bytes(8, "big"), high, range(at, self._end))
        if found is not None:
            for number, hit in enumerate(found.hits):
                if not await self._take(found.hits, number, hit):
                    return hit.offset
            if found.stopped_at is not None:
                return found.stopped_at.offset + 1
            at = max(at, found.through)
        return await self._scan_up(at)

    async def down(self, end: int) -> int | None:
        """Fill the page from below offset `end` on, newest first; below where to go on."""
        top = min(end, self._end)
        low, _ = self._terms.span()
        covered = self._covered()
        if top > covered:
            next_top = await self._scan_down(max(covered, self.stream.log_start_offset), top)
            if next_top is not None:
                return next_top
            top = covered
        offsets = range(self.stream.log_start_offset, min(top, self._end))
        if not offsets:
            return None
        found = await self._look_up(
            low, low + offsets.stop.to_bytes(8, "big"), offsets, is_reverse=True
        )
        if found is None:  # given up meanwhile
            return await self._scan_down(offsets.start, offsets.stop)
        for number, hit in enumerate(found.hits):
            if not await self._take(found.hits, number, hit):
                return hit.offset + 1
        return found.stopped_at.offset if found.stopped_at is not None else None

    def _covered(self) -> int:
        tree = self._tree
        return tree.through if tree is not None and tree.tree is not None else 0

    async def _look_up(
        self, low: bytes, high: bytes, offsets: range, *, is_reverse: bool = False
    ) -> Found | None:
        """None: there is nothing to look into."""
        opened = self._tree.tree if self._tree is not None else None
        if opened is None:
            return None
        job = partial(
            opened.find,
            low,
            high,
            offsets=offsets,
            count_max=self.page.limit + 1,
            visits_max=VISITS_MAX,
            is_reverse=is_reverse,
        )
        try:
            found = await self._reader.run(job)
        except BadIndex:
            return None
        return found if found.through else None

    # ---- by value

    async def by_value(self, after: Hit | None) -> Hit | None:
        """Fill the page with what comes behind `after`; behind what to go on."""
        is_reverse = self._terms.is_descending
        low, high = self._terms.span()
        if after is not None and is_reverse:
            high = _key(after)
        elif after is not None:
            low = _key(after) + b"\0"
        await self._catch_up()
        offsets = range(self.stream.log_start_offset, self._end)
        found = await self._look_up(low, high, offsets, is_reverse=is_reverse)
        through = found.through if found is not None else 0
        hits = await self._tail(max(through, self.stream.log_start_offset), low, high)
        hits += found.hits if found is not None else []
        hits.sort(key=_key, reverse=is_reverse)
        stop = found.stopped_at if found is not None else None
        if stop is not None:
            end = _key(stop)
            hits = [hit for hit in hits if (_key(hit) >= end if is_reverse else _key(hit) <= end)]
        before = after
        for number, hit in enumerate(hits):
            if not await self._take(hits, number, hit):
                return before
            before = hit
        return stop

    async def _catch_up(self) -> None:
        """Wait until little enough is left to be read. Raises NotReady."""
        waited_s = 0.0
        while self._end - max(self._covered(), self.stream.log_start_offset) > TAIL_RECORDS_MAX:
            if self._tree is None or waited_s >= TAIL_WAIT_S:
                raise NotReady(
                    "the index covers too little yet for an answer in order of value",
                    covered=self._covered(),
                    high_watermark=self._end,
                )
            self._tree.is_hurried = True
            self._hurry()
            await self._reader.sleep(TAIL_LOOK_S)
            waited_s += TAIL_LOOK_S

    async def _tail(self, start: int, low: bytes, high: bytes) -> list[Hit]:
        """The hits among the records that the index does not cover."""
        hits: list[Hit] = []

        def take(records: list[StoredRecord]) -> None:
            for record in records:
                value = self._find(record)
                assert value is not None
                hit = Hit(encode(value), record.offset)
                if low <= _key(hit) < high:
                    hits.append(hit)

        at: int | None = start
        while at is not None:
            records, at = await self._read_matches(at, self._end)
            take(records)
            if self._left_bytes < -3 * SCAN_BYTES:
                raise NotReady("the index covers too little yet for an answer in order of value")
        return hits

    # ---- records

    async def _take(self, hits: Sequence[Hit], number: int, hit: Hit) -> bool:
        """Add the record of hit `number` if it is one still; False if the page has no room."""
        if self.page.is_full or self._fetched.bytes_left <= 0:
            return False
        record = await self._fetched.get(hits, number, self.page.limit - len(self.page.records))
        value = self._find(record) if record is not None else None
        if record is None or value is None or not self._terms.accept(value):
            return True
        return self.page.take(record)

    # ---- scans

    async def _scan_up(self, start: int) -> int | None:
        at: int | None = start
        while at is not None:
            if self.page.is_full or self._left_bytes <= 0:
                return at
            at = await self.skip_up(at)
            if at >= self._end:
                return None
            records, at = await self._read_matches(at, self._end)
            for record in records:
                if not self.page.take(record):
                    return record.offset
        return None

    async def _scan_down(self, start: int, end: int) -> int | None:
        """From `end` down to `start`; below where to go on, None when `start` is reached."""
        top = end
        while top > start:
            if self.page.is_full or self._left_bytes <= 0:
                return top
            top, bottom = await self.skip_down(start, top)
            if top <= start:
                return None
            bottom = max(bottom, start, top - self._stride)
            left_bytes = self._left_bytes
            kept, is_whole = await self._newest(bottom, top)
            if left_bytes - self._left_bytes < _PIECE_BYTES:
                self._stride *= 2
            elif self._stride > _DOWN_RECORDS:
                self._stride //= 2
            for record in kept:
                if not self.page.take(record):
                    return record.offset + 1
            if not is_whole:
                return kept[-1].offset
            top = bottom
        return None

    async def _newest(self, bottom: int, top: int) -> tuple[list[StoredRecord], bool]:
        """The newest matches in `[bottom, top)`, newest first, and whether these are all."""
        kept: deque[StoredRecord] = deque()
        size, is_whole = 0, True
        at: int | None = bottom
        while at is not None:
            records, at = await self._read_matches(at, top)
            for record in records:
                kept.append(record)
                size += size_of(record)
                while len(kept) > 1 and (len(kept) > self.page.limit or size > self.page.bytes_max):
                    size -= size_of(kept.popleft())
                    is_whole = False
        return list(reversed(kept)), is_whole

    async def _read_matches(self, start: int, end: int) -> Part:
        """The matches among the next records from `start` on; where to go on, None at `end`."""
        if start >= end:
            return Part([], None)
        try:
            batches = await self._reader.batches(self.stream, start, _PIECE_BYTES)
        except OffsetTrimmed:
            return Part([], max(start + 1, self.stream.log_start_offset))
        if not batches:
            raise unknown_stream(self.stream.name)
        size = sum(batch.size for batch in batches)
        self._left_bytes -= size
        job = partial(matches, batches, range(start, end), self._find, self._terms)
        is_small = size <= ON_LOOP_BYTES and not any(batch.codec for batch in batches)
        records, reached = job() if is_small else await self._reader.run(job)
        return Part(records, reached if reached < end else None)

    # ---- filters

    async def skip_up(self, start: int) -> int:
        """The first offset from `start` on whose segment may hold a match."""
        at = start
        while (rows := self._filtered(at, is_down=False)) and rows[0][0] <= at:
            skipped = await self._judge(rows)
            if not skipped:
                return at
            at = rows[skipped - 1][1]
            if skipped < len(rows):
                return at
        return at

    async def skip_down(self, start: int, top: int) -> tuple[int, int]:
        """The last offset below `top` whose segment may hold a match, plus one, and where that
        segment begins.
        """
        while top > start and (rows := self._filtered(top, is_down=True)) and rows[0][1] >= top:
            skipped = await self._judge(rows)
            if not skipped:
                return top, rows[0][0]
            top = rows[skipped - 1][0]
            if skipped < len(rows):
                return top, rows[skipped][0]
        if self._filters is None or top <= start:
            return top, start
        return top, self.stream.segments.base_of(top - 1)

    def _filtered(self, at: int, *, is_down: bool) -> list[tuple[int, int]]:
        """Segments in a row that have a filter, beginning with the one at `at` (below it)."""
        content = self._filters
        point = self._terms.point
        if content is None or content.ends is None or point is None:
            return []
        rows: list[tuple[int, int]] = []
        sealed = self.stream.segments.sealed_from(at - 1 if is_down else at, is_down=is_down)
        for row in sealed:
            is_filtered = content.ends.get(row.base_offset) == row.end_offset
            if not is_filtered or row.base_offset in self._maybe or len(rows) == _FILTERS_A_JOB:
                break
            rows.append((row.base_offset, row.end_offset))
        return rows

    async def _judge(self, rows: list[tuple[int, int]]) -> int:
        """How many of the segments, from the first on, certainly have no match."""
        content, point = self._filters, self._terms.point
        assert content is not None
        assert point is not None
        place = content.place

        def job() -> tuple[int, int | None]:
            for number, (base_offset, end_offset) in enumerate(rows):
                found = self._files.filter_of(place, base_offset, end_offset)
                if found is None or point in found:
                    return number, base_offset if found is None else None
            return len(rows), None

        skipped, bad = await self._reader.run(job)
        if bad is not None:
            content.forget(bad)
        if skipped < len(rows):
            self._maybe.add(rows[skipped][0])
        self._counts.skipped += skipped
        self._counts.looked_at += min(len(rows), skipped + 1)
        return skipped


def _key(hit: Hit) -> bytes:
    return hit.value + hit.offset.to_bytes(8, "big")
