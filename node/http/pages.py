"""A page of records: whole batches looked at from an offset on, and what a query wants of them.

`downward.py` reads pages the other way.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UnsetType

from ...replication.errors import BeyondHighWatermark
from ...replication.types import ReadResult, StreamInfo
from ...storage.batch import BATCH_HEADER_SIZE, Batch
from ...storage.codec import CODEC_NONE
from ...storage.filesystem import Buffer
from ...storage.record import StoredRecord
from .context import Context
from .levels import before_refusing
from .queries import INTEGER_MAX, ReadQuery

SLICE_BYTES: Final = 256 * 1024
"""After decoding so much, let others run."""
_FEW: Final = 4
"""One part in so many of a batch."""


@dataclass(slots=True)
class Page:
    """What one look at the log gave."""

    result: ReadResult
    records: list[StoredRecord]
    start: int
    """Where the read began."""
    next_offset: int
    """Where to go on: the end of what was looked at."""
    held_bytes: int
    """Size of the batches, and of what they unpack to, counted in the node's budget for answers."""
    batches: list[Batch] = field(default_factory=list)
    """Instead of records, if batches are wanted as they are."""

    @property
    def is_empty(self) -> bool:
        return not (self.records or self.batches)


async def first_offset(context: Context, query: ReadQuery, info: StreamInfo) -> int:
    """Return the offset at which the read begins."""
    if not isinstance(query.timestamp, UnsetType):
        return await context.live_replica().find_timestamp(info.name, query.timestamp)
    if isinstance(query.offset, UnsetType):
        return info.log_start_offset
    if query.offset < 0:
        return await context.live_replica().tail_offset(info.name, -query.offset)
    return query.offset


def end_offset(query: ReadQuery) -> int:
    """Return the offset before which the read ends."""
    return INTEGER_MAX if isinstance(query.until, UnsetType) else query.until


async def read_page(
    context: Context,
    name: str,
    query: ReadQuery,
    first: int,
    *,
    bytes_max: int,
    wait_ms: int = 0,
    as_batches: bool = False,
) -> Page:
    """Look at about `bytes_max` bytes from `first` on; at the high watermark wait up to `wait_ms`.

    Bytes are counted as they are when unpacked: a little that is compressed can be very much. With
    `as_batches` nothing is unpacked, and they are counted as they are.

    Its `held_bytes` are the caller's to give back. Raises Problem `throttled`, and what
    `Replica.read` raises.
    """
    replica, start = context.live_replica(), first
    if not isinstance(query.key, UnsetType):
        start = await replica.skip_absent(name, query.key.encode(), start)
        start = min(start, max(end_offset(query), first))
    try:
        result = await replica.read(name, start, bytes_max=bytes_max, wait_ms=wait_ms)
    except BeyondHighWatermark:
        await before_refusing(context)
        result = await replica.read(name, start, bytes_max=bytes_max, wait_ms=wait_ms)
    page = Page(result, [], first, start, 0)
    try:
        hold(context, page, sum(batch.size for batch in result.batches))
        if as_batches:
            keep_batches(page, query)
        else:
            await _take_all(context, page, query, bytes_max)
    except BaseException:
        context.answers.give_back(page.held_bytes)
        raise
    return page


def hold(context: Context, page: Page, size: int) -> None:
    """Count `size` bytes more that the page holds. Raises Problem `throttled`."""
    context.answers.take(size)
    page.held_bytes += size


def keep_batches(page: Page, query: ReadQuery) -> None:
    """Keep whole batches up to the one with the last record that the query wants."""
    left, end = query.limit, end_offset(query)
    for batch in page.result.batches:
        if left <= 0 or page.next_offset >= end:
            return
        page.batches.append(batch)
        left -= min(batch.count, batch.next_offset - page.next_offset)
        page.next_offset = min(batch.next_offset, end)


async def _take_all(context: Context, page: Page, query: ReadQuery, bytes_max: int) -> None:
    looked_at = decoded = 0
    for batch in page.result.batches:
        body = batch.unpacked()
        size = BATCH_HEADER_SIZE + len(body)
        if looked_at and looked_at + size > bytes_max:
            return
        looked_at += size
        if batch.codec != CODEC_NONE:
            hold(context, page, len(body))
        if not take_records(page, batch, body, query):
            return
        decoded += len(body)
        if decoded >= SLICE_BYTES:
            decoded = 0
            await asyncio.sleep(0)


def take_records(page: Page, batch: Batch, body: Buffer, query: ReadQuery) -> bool:
    """Move the records of `batch` that the query wants to `page`; False once it has enough.

    A batch whose unpacked `body` is larger than `max_bytes` is cut after the records that fit, one
    at least.
    """
    start, end = page.next_offset, end_offset(query)
    key = None if isinstance(query.key, UnsetType) else query.key.encode()
    bytes_left = query.max_bytes if BATCH_HEADER_SIZE + len(body) > query.max_bytes else None
    if start >= end:
        return False
    for record in batch.records_from(start, body, few=_is_few(query, batch, body)):
        if record.offset >= end:
            page.next_offset = end
            return False
        if key is not None and record.key != key:
            page.next_offset = record.offset + 1
            continue
        if bytes_left is not None:
            bytes_left -= size_of(record)
            if bytes_left < 0 and page.records:
                return False
        page.records.append(record)
        page.next_offset = record.offset + 1
        if len(page.records) == query.limit:
            return False
    page.next_offset = min(batch.next_offset, end)
    return True


def _is_few(query: ReadQuery, batch: Batch, body: Buffer) -> bool:
    """Is so little of the batch wanted that to decode only this is less work?"""
    if not isinstance(query.key, UnsetType):
        return False
    return _FEW * query.limit <= batch.count or _FEW * query.max_bytes <= len(body)


def size_of(record: StoredRecord) -> int:
    headers = sum(len(name) + len(text) for name, text in record.headers.items())
    return len(record.key or b"") + len(record.value or b"") + headers


def json_fields(record: StoredRecord) -> dict[str, Any]:
    """Return a record's fields for JSON: UTF-8 as text, other bytes as base64."""
    fields: dict[str, Any] = {"offset": record.offset, "timestamp": record.timestamp}
    for name, data in (("key", record.key), ("value", record.value)):
        if data is None:
            fields[name] = None
            continue
        try:
            fields[name] = data.decode()
        except UnicodeDecodeError:
            fields[f"{name}_b64"] = base64.b64encode(data).decode()
    fields["headers"] = record.headers
    return fields


def msgpack_fields(record: StoredRecord) -> dict[str, Any]:
    """Return a record's fields for msgpack: bytes as they are."""
    return {
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.key,
        "value": record.value,
        "headers": record.headers,
    }
