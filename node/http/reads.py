"""Read: a page of records from an offset or a time on, waiting for them if asked to."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from msgspec import UnsetType

from ...replication.errors import BeyondHighWatermark
from ...replication.types import ReadResult, StreamInfo
from ...storage.batch import Batch
from ...storage.record import StoredRecord
from .answers import accepted, answer, prefers_msgpack
from .bodies import BATCHES, JSON, MSGPACK
from .context import Context, context_of
from .levels import before_refusing, check_lag, reach_level, with_stream
from .problems import Problem, invalid
from .queries import INTEGER_MAX, ReadQuery, read_query
from .records import SLICE_RECORDS
from .streams import stream_name

WRITE_TIMEOUT_S: Final = 60.0
"""A client that takes longer to receive an answer is given up."""
_SLICE_BYTES: Final = 256 * 1024
"""After decoding so much, let others run."""


@dataclass(slots=True)
class Page:
    """What one look at the log gave."""

    result: ReadResult
    records: list[StoredRecord]
    next_offset: int
    """Where to go on: the end of what was looked at."""
    held_bytes: int
    """Size of the batches, counted in the node's budget for answers."""


async def read_records(request: web.Request) -> web.StreamResponse:
    """GET /v1/streams/{stream}/records"""
    name = stream_name(request, writes=False)
    query = read_query(request, ReadQuery)
    _check(request, query)
    context = context_of(request)
    await reach_level(request, query)
    start = await _start(context, query, await with_stream(context, name))
    page = await _page_or_wait(request, name, query, start)
    try:
        check_lag(query, page.result.lag_ms)
        response = answer(request, await _describe(request, name, start, query, page))
        await _send(request, response)
    finally:
        context.answers.give_back(page.held_bytes)
    return response


def _check(request: web.Request, query: ReadQuery) -> None:
    accept = request.headers.get("Accept", "")
    streaming = {"text/event-stream", "application/x-ndjson", BATCHES} & accepted(accept).keys()
    if streaming and not {JSON, MSGPACK} & accepted(accept).keys():
        raise Problem("not_implemented", f"answers as {min(streaming)} are not built yet")
    if query.order == "desc":
        raise Problem("not_implemented", "order=desc is not built yet")
    if not isinstance(query.offset, UnsetType) and not isinstance(query.timestamp, UnsetType):
        raise invalid("timestamp", "offset is given too; one of the two is wanted")


async def _start(context: Context, query: ReadQuery, info: StreamInfo) -> int:
    if not isinstance(query.timestamp, UnsetType):
        return await context.live_replica().find_timestamp(info.name, query.timestamp)
    if isinstance(query.offset, UnsetType):
        return info.log_start_offset
    if query.offset < 0:
        return max(info.log_start_offset, info.high_watermark + query.offset)
    return query.offset


async def _page_or_wait(request: web.Request, name: str, query: ReadQuery, start: int) -> Page:
    """Return the page at `start`; if the log ends before there is a record, wait for one."""
    context = context_of(request)
    page = await _page(context, name, query, start, wait_ms=0)
    if not query.wait_ms or not _may_come(page, query):
        return page
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.wait_ms / 1000
    with context.waiting(request):
        while _may_come(page, query) and (left_ms := int((deadline - loop.time()) * 1000)) > 0:
            context.answers.give_back(page.held_bytes)
            page.held_bytes = 0
            page = await _page(context, name, query, page.next_offset, wait_ms=left_ms)
    return page


def _may_come(page: Page, query: ReadQuery) -> bool:
    return (
        not page.records
        and page.next_offset >= page.result.high_watermark
        and page.next_offset < _end(query)
    )


def _end(query: ReadQuery) -> int:
    return INTEGER_MAX if isinstance(query.until, UnsetType) else query.until


async def _page(context: Context, name: str, query: ReadQuery, start: int, wait_ms: int) -> Page:
    replica = context.live_replica()
    try:
        result = await replica.read(name, start, bytes_max=query.max_bytes, wait_ms=wait_ms)
    except BeyondHighWatermark:
        await before_refusing(context)
        result = await replica.read(name, start, bytes_max=query.max_bytes, wait_ms=wait_ms)
    held = sum(batch.size for batch in result.batches)
    context.answers.take(held)
    page = Page(result, [], start, held)
    try:
        decoded = 0
        for batch in result.batches:
            if not take_records(page, batch, query):
                break
            decoded += batch.size
            if decoded >= _SLICE_BYTES:
                decoded = 0
                await asyncio.sleep(0)
    except BaseException:
        context.answers.give_back(held)
        raise
    return page


def take_records(page: Page, batch: Batch, query: ReadQuery) -> bool:
    """Move the records of `batch` that the query wants to `page`; False once it has enough.

    A batch larger than `max_bytes` is cut after the records that fit, one at least.
    """
    start, end = page.next_offset, _end(query)
    key = None if isinstance(query.key, UnsetType) else query.key.encode()
    bytes_left = query.max_bytes if batch.size > query.max_bytes else None
    if start >= end:
        return False
    for record in batch.records():
        if record.offset < start:
            continue
        if record.offset >= end:
            page.next_offset = end
            return False
        if key is not None and record.key != key:
            page.next_offset = record.offset + 1
            continue
        if bytes_left is not None:
            bytes_left -= _size(record)
            if bytes_left < 0 and page.records:
                return False
        page.records.append(record)
        page.next_offset = record.offset + 1
        if len(page.records) == query.limit:
            return False
    page.next_offset = min(batch.next_offset, end)
    return True


def _size(record: StoredRecord) -> int:
    headers = sum(len(name) + len(text) for name, text in record.headers.items())
    return len(record.key or b"") + len(record.value or b"") + headers


async def _describe(
    request: web.Request, name: str, start: int, query: ReadQuery, page: Page
) -> dict[str, Any]:
    result = page.result
    as_fields = msgpack_fields if prefers_msgpack(request) else json_fields
    records: list[dict[str, Any]] = []
    for first in range(0, len(page.records), SLICE_RECORDS):
        if first:
            await asyncio.sleep(0)
        records += map(as_fields, page.records[first : first + SLICE_RECORDS])
    body: dict[str, Any] = {
        "stream": name,
        "records": records,
        "next_offset": page.next_offset,
        "log_start_offset": result.log_start_offset,
        "high_watermark": result.high_watermark,
        "index": result.index,
        "term": result.term,
        "lag_ms": result.lag_ms,
    }
    if not page.records:
        body["why"] = _why(start, query, page)
    return body


def _why(start: int, query: ReadQuery, page: Page) -> str:
    """Say why no record came: the range is empty, none of it matched, or there is no more yet."""
    if start >= _end(query):
        return "until"
    return "filtered" if page.next_offset > start else "end_of_log"


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


async def _send(request: web.Request, response: web.Response) -> None:
    """Write the answer out while its bytes are still counted; give up on who does not take it."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not receive its answer") from error
