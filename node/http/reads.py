"""Read: a page of records from an offset or a time on, waiting for them if asked to."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from msgspec import UnsetType

from .answers import accepted, answer, delivering, prefers_msgpack
from .bodies import BATCHES, JSON, MSGPACK
from .context import context_of
from .events import follow_records, stream_type
from .levels import check_lag, reach_level, with_stream
from .pages import Page, end_offset, first_offset, json_fields, msgpack_fields, read_page
from .problems import Problem, invalid
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
    start = await first_offset(context, query, await with_stream(context, name))
    page = await _page_or_wait(request, name, query, start)
    try:
        check_lag(query, page.result.lag_ms)
        response = answer(request, await _describe(request, name, start, query, page))
        # Written out here: its bytes are counted until the client has them.
        async with delivering(request):
            await response.prepare(request)
            await response.write_eof()
    finally:
        context.answers.give_back(page.held_bytes)
    return response


def _check(request: web.Request, query: ReadQuery) -> None:
    media_types = accepted(request.headers.get("Accept", "")).keys()
    if BATCHES in media_types and not {JSON, MSGPACK} & media_types:
        raise Problem("not_implemented", f"answers as {BATCHES} are not built yet")
    if query.order == "desc":
        raise Problem("not_implemented", "order=desc is not built yet")
    if not isinstance(query.offset, UnsetType) and not isinstance(query.timestamp, UnsetType):
        raise invalid("timestamp", "offset is given too; one of the two is wanted")


async def _page_or_wait(request: web.Request, name: str, query: ReadQuery, start: int) -> Page:
    """Return the page at `start`; if the log ends before there is a record, wait for one."""
    context, bytes_max = context_of(request), query.max_bytes
    page = await read_page(context, name, query, start, bytes_max=bytes_max)
    if not query.wait_ms or not _may_come(page, query):
        return page
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.wait_ms / 1000
    with context.waiting(request):
        while _may_come(page, query) and (left_ms := int((deadline - loop.time()) * 1000)) > 0:
            context.answers.give_back(page.held_bytes)
            page.held_bytes = 0
            page = await read_page(
                context, name, query, page.next_offset, bytes_max=bytes_max, wait_ms=left_ms
            )
    return page


def _may_come(page: Page, query: ReadQuery) -> bool:
    return (
        not page.records
        and page.next_offset >= page.result.high_watermark
        and page.next_offset < end_offset(query)
    )


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
    if start >= end_offset(query):
        return "until"
    if page.next_offset == start:
        return "end_of_log"
    return "compacted" if isinstance(query.key, UnsetType) else "filtered"
