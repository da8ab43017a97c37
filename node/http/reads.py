"""Read: a page of records from an offset or a time on, waiting for them if asked to.

With `Accept: application/vnd.cute.batch` the answer's body is the stored batches as they are, end
to end, and headers say the rest:

    Cute-Offset, Cute-Next-Offset     the answer is the records of [offset, next offset): the first
                                      batch may begin before it, the last one end behind it
    Cute-Log-Start-Offset, Cute-High-Watermark, Cute-Lag-Ms, Cute-Why
    Cute-Index, Cute-Term             as in every answer

Batches are whole: the last one is that with the `limit`-th record, or the first if that alone is
larger than `max_bytes`, which counts them as they are stored. Nothing in them is looked at, so
`key` and `order=desc` are for JSON and msgpack.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from msgspec import UnsetType

from .answers import answer, delivering, prefers_batches, prefers_msgpack
from .bodies import BATCHES
from .context import context_of
from .downward import read_page_down
from .events import follow_records, stream_type
from .levels import check_lag, reach_level, with_stream
from .pages import Page, end_offset, first_offset, json_fields, msgpack_fields, read_page
from .problems import invalid
from .queries import ReadQuery, read_query
from .records import SLICE_RECORDS
from .streams import stream_name


async def read_records(request: web.Request) -> web.StreamResponse:
    """GET /v1/streams/{stream}/records"""
    name = stream_name(request, writes=False)
    query = read_query(request, ReadQuery)
    _check(request, query)
    media_type = stream_type(request)
    if media_type is not None:
        return await follow_records(request, name, query, media_type)
    context = context_of(request)
    await reach_level(request, query)
    info = await with_stream(context, name)
    if query.order == "desc":
        page = await read_page_down(context, name, query)
    else:
        start = await first_offset(context, query, info)
        page = await _page_or_wait(request, name, query, start)
    try:
        check_lag(query, page.result.lag_ms)
        if prefers_batches(request):
            response = _as_batches(query, page)
        else:
            response = answer(request, await _describe(request, name, query, page))
        # Written out here: its bytes are counted until the client has them.
        async with delivering(request):
            await response.prepare(request)
            await response.write_eof()
    finally:
        context.answers.give_back(page.held_bytes)
    return response


def _check(request: web.Request, query: ReadQuery) -> None:
    if query.order == "desc":
        if query.wait_ms:
            raise invalid("wait_ms", "with order=desc there is nothing to wait for")
        if stream_type(request) is not None:
            raise invalid("order", "a stream of events goes upward only")
    if prefers_batches(request):
        if query.order == "desc":
            raise invalid("order", f"{BATCHES} goes upward only; ask for JSON or msgpack")
        if not isinstance(query.key, UnsetType):
            raise invalid("key", f"{BATCHES} is not filtered; ask for JSON or msgpack")
    if not isinstance(query.offset, UnsetType) and not isinstance(query.timestamp, UnsetType):
        raise invalid("timestamp", "offset is given too; one of the two is wanted")


async def _page_or_wait(request: web.Request, name: str, query: ReadQuery, start: int) -> Page:
    """Return the page at `start`; if the log ends before there is a record, wait for one."""
    context, bytes_max = context_of(request), query.max_bytes
    as_batches = prefers_batches(request)
    page = await read_page(context, name, query, start, bytes_max=bytes_max, as_batches=as_batches)
    if not query.wait_ms or not _may_come(page, query):
        return page
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.wait_ms / 1000
    with context.waiting(request):
        while _may_come(page, query) and (left_ms := int((deadline - loop.time()) * 1000)) > 0:
            context.answers.give_back(page.held_bytes)
            page.held_bytes = 0
            page = await read_page(
                context,
                name,
                query,
                page.next_offset,
                bytes_max=bytes_max,
                wait_ms=left_ms,
                as_batches=as_batches,
            )
            page.start = start
    return page


def _may_come(page: Page, query: ReadQuery) -> bool:
    return (
        page.is_empty
        and page.next_offset >= page.result.high_watermark
        and page.next_offset < end_offset(query)
    )


def _as_batches(query: ReadQuery, page: Page) -> web.Response:
    facts: dict[str, object] = {
        "Cute-Offset": page.start,
        "Cute-Next-Offset": page.next_offset,
        "Cute-Log-Start-Offset": page.result.log_start_offset,
        "Cute-High-Watermark": page.result.high_watermark,
        "Cute-Lag-Ms": page.result.lag_ms,
    }
    if page.is_empty:
        facts["Cute-Why"] = _why(query, page)
    return web.Response(
        body=b"".join([batch.data for batch in page.batches]),
        headers={name: str(fact) for name, fact in facts.items()},
        content_type=BATCHES,
    )


async def _describe(
    request: web.Request, name: str, query: ReadQuery, page: Page
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
        body["why"] = _why(query, page)
    return body


def _why(query: ReadQuery, page: Page) -> str:
    """Say why no record came: the range is empty, none of it matched, or there is no more (yet)."""
    if query.order == "desc":
        if not isinstance(query.until, UnsetType) and page.start <= query.until:
            return "until"
        return "filtered" if page.next_offset < page.start else "start_of_log"
    if page.start >= end_offset(query):
        return "until"
    if page.next_offset == page.start:
        return "end_of_log"
    return "compacted" if isinstance(query.key, UnsetType) else "filtered"
