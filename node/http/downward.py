"""A page that is read downward: the records below an offset, the newest first.

`order=desc` turns a range around and nothing else: upward a read has the records of
[offset, until), downward those of [until, offset). So the `next_offset` of a page is where the next
one begins in both, an end that comes out twice is never skipped or shown twice, and whoever goes on
until a page is empty has seen all.

A log finds a batch by its offset, not the one before it. So this goes down in strides: from a batch
that is there to a place some records below it, further with each stride, nearer when the bytes
between did not fit.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import UnsetType

from ...replication.errors import BeyondHighWatermark, OffsetTrimmed
from ...replication.types import StreamInfo
from ...storage.batch import BATCH_HEADER_SIZE, Batch
from ...storage.codec import CODEC_NONE
from ...storage.filesystem import Buffer
from .context import Context
from .levels import before_refusing
from .pages import SLICE_BYTES, Page, first_offset, hold, size_of
from .queries import ReadQuery

_STRIDE_GROWTH: Final = 4


async def read_page_down(context: Context, name: str, query: ReadQuery) -> Page:
    """Look at about `max_bytes` bytes downward from where the query begins.

    Its `held_bytes` are the caller's to give back. Raises Problem `throttled`, and what
    `Replica.read` raises.
    """
    replica = context.live_replica()
    info = replica.stream(name)
    start = await _start(context, query, info)
    if start > info.high_watermark:
        await before_refusing(context)
        info = replica.stream(name)
    _check_range(start, info)
    low = info.log_start_offset
    if not isinstance(query.until, UnsetType):
        low = max(low, query.until)
    # Of the stream as it is; none of its batches.
    result = await replica.read(name, info.high_watermark, bytes_max=1)
    page = Page(result, [], start, start, 0)
    try:
        descent = _Descent(context, name, page, low)
        while await descent.step(query):
            pass
    except BaseException:
        context.answers.give_back(page.held_bytes)
        raise
    return page


async def _start(context: Context, query: ReadQuery, info: StreamInfo) -> int:
    if isinstance(query.offset, UnsetType) and isinstance(query.timestamp, UnsetType):
        return info.high_watermark
    return await first_offset(context, query, info)


def _check_range(start: int, info: StreamInfo) -> None:
    bounds = {"log_start_offset": info.log_start_offset, "high_watermark": info.high_watermark}
    if start < info.log_start_offset:
        raise OffsetTrimmed(f"offset {start} was trimmed", **bounds)
    if start > info.high_watermark:
        raise BeyondHighWatermark(f"offset {start} does not exist yet", **bounds)


class _Descent:
    """One page on its way down."""

    def __init__(self, context: Context, name: str, page: Page, low: int) -> None:
        self._context = context
        self._replica = context.live_replica()
        self._name = name
        self._page = page
        self._low = low
        self._at = page.next_offset
        """The batches from here on were looked at."""
        self._stride = 1
        self._looked_at = 0

    async def step(self, query: ReadQuery) -> bool:
        """Look at the batches that one stride finds; False once the page has enough."""
        if not isinstance(query.key, UnsetType) and self._at > self._low:
            key = query.key.encode()
            self._at = await self._replica.skip_absent_down(self._name, key, self._low, self._at)
            self._page.next_offset = max(min(self._page.next_offset, self._at), self._low)
        if self._at <= self._low:
            self._page.next_offset = min(self._page.next_offset, self._low)
            return False
        if isinstance(query.key, UnsetType):
            self._stride = min(self._stride, query.limit - len(self._page.records))
        found = await self._stretch(max(1, query.max_bytes - self._looked_at))
        if found is None:
            return False
        hold(self._context, self._page, sum(batch.size for batch in found))
        decoded = 0
        for batch in reversed(found):
            body = batch.unpacked()
            size = BATCH_HEADER_SIZE + len(body)
            if self._looked_at and self._looked_at + size > query.max_bytes:
                return False
            self._looked_at += size
            if batch.codec != CODEC_NONE:
                hold(self._context, self._page, len(body))
            if not take_records_down(self._page, batch, body, query, self._low):
                return False
            decoded += len(body)
            if decoded >= SLICE_BYTES:
                decoded = 0
                await asyncio.sleep(0)
        return self._looked_at < query.max_bytes

    async def _stretch(self, bytes_max: int) -> list[Batch] | None:
        """Return the batches from some place below up to what was looked at; None if that is gone.

        At least the last of them, which may be none where records were removed.
        """
        while True:
            begin = max(self._low, self._at - self._stride)
            try:
                result = await self._replica.read(self._name, begin, bytes_max=bytes_max)
            except OffsetTrimmed:
                return None
            if result.stream_id != self._page.result.stream_id or not result.batches:
                return None
            found = [batch for batch in result.batches if batch.base_offset < self._at]
            if len(found) < len(result.batches) or found[-1].next_offset >= self._at:
                self._at = min(begin, found[0].base_offset) if found else begin
                self._stride *= _STRIDE_GROWTH
                return found
            self._stride = max(1, min(self._stride, self._at - begin) // _STRIDE_GROWTH)


def take_records_down(page: Page, batch: Batch, body: Buffer, query: ReadQuery, low: int) -> bool:
    """Move the records of `batch` below the page's `next_offset` to it; False once it has enough.

    A batch whose unpacked `body` is larger than `max_bytes` is cut as `take_records` does it.
    """
    key = None if isinstance(query.key, UnsetType) else query.key.encode()
    bytes_left = query.max_bytes if BATCH_HEADER_SIZE + len(body) > query.max_bytes else None
    for record in reversed(batch.records(body)):
        if record.offset >= page.next_offset:
            continue
        if record.offset < low:
            break
        if key is not None and record.key != key:
            page.next_offset = record.offset
            continue
        if bytes_left is not None:
            bytes_left -= size_of(record)
            if bytes_left < 0 and page.records:
                return False
        page.records.append(record)
        page.next_offset = record.offset
        if len(page.records) == query.limit:
            return False
    page.next_offset = max(min(page.next_offset, batch.base_offset), low)
    return True
