"""Find records: by what an index is on, and the newest one of a key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from ...replication.errors import UnknownIndex, UnknownKey
from ...replication.search_terms import Asked
from ...replication.types import SearchResult
from ...storage.record import StoredRecord
from .answers import answer, delivering, prefers_msgpack
from .context import Context, context_of
from .indexes import checked_index
from .levels import before_refusing, check_lag, reach_level, with_stream
from .pages import json_fields, msgpack_fields
from .problems import invalid
from .queries import Count, LevelQuery, read_query
from .records import SLICE_RECORDS
from .streams import stream_name

PAGE_BYTES_MAX: Final = 1 << 20
"""Of keys, values and headers; one record may be larger."""
_TERM_BYTES_MAX: Final = 4096
_HELD_BYTES: Final = 2 * PAGE_BYTES_MAX


class SearchQuery(LevelQuery, frozen=True, kw_only=True):
    index: str
    eq: str | UnsetType = UNSET
    ge: str | UnsetType = UNSET
    lt: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 500
    cursor: str | UnsetType = UNSET
    order: Literal["asc", "desc"] = "asc"


class KeyQuery(LevelQuery, frozen=True, kw_only=True):
    as_of: Count | UnsetType = UNSET


async def search(request: web.Request) -> web.StreamResponse:
    """GET /v1/streams/{stream}/search"""
    name = stream_name(request, writes=False)
    query = read_query(request, SearchQuery)
    index = checked_index("index", query.index)
    asked = _asked(request, query)
    cursor = None if isinstance(query.cursor, UnsetType) else query.cursor
    context = context_of(request)
    await _reach(request, query, cursor)
    await with_stream(context, name)
    context.answers.take(_HELD_BYTES)
    try:
        try:
            result = await _search(context, name, index, asked, query.limit, cursor)
        except UnknownIndex:
            await before_refusing(context)
            result = await _search(context, name, index, asked, query.limit, cursor)
        check_lag(query, result.lag_ms)
        body = await _describe(request, name, result)
        # Written out here: its bytes are counted until the client has them.
        response = answer(request, body)
        async with delivering(request):
            await response.prepare(request)
            await response.write_eof()
    finally:
        context.answers.give_back(_HELD_BYTES)
    return response


async def _search(
    context: Context, name: str, index: str, asked: Asked, limit: int, cursor: str | None
) -> SearchResult:
    return await context.live_replica().search(
        name, index, asked, limit=limit, bytes_max=PAGE_BYTES_MAX, cursor=cursor
    )


async def _reach(request: web.Request, query: SearchQuery, cursor: str | None) -> None:
    """Who goes on at a cursor sees no less than the page before, on whichever node."""
    if cursor is not None:
        shown = context_of(request).live_replica().cursor_index(cursor)
        after = shown if isinstance(query.after, UnsetType) else max(shown, query.after)
        query = msgspec.structs.replace(query, after=after)
    await reach_level(request, query)


def _asked(request: web.Request, query: SearchQuery) -> Asked:
    """Terms are bytes: a key need not be UTF-8."""
    raw = request.rel_url.raw_query_string
    came = dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))
    terms: dict[str, bytes | None] = {}
    for name in ("eq", "ge", "lt", "prefix"):
        text = came.get(name)
        terms[name] = text.encode(errors="surrogateescape") if text is not None else None
        if len(terms[name] or b"") > _TERM_BYTES_MAX:
            raise invalid(name, f"wanted at most {_TERM_BYTES_MAX} bytes")
    return Asked(
        eq=terms["eq"],
        ge=terms["ge"],
        lt=terms["lt"],
        prefix=terms["prefix"],
        is_descending=query.order == "desc",
    )


async def _describe(request: web.Request, name: str, result: SearchResult) -> dict[str, Any]:
    return {
        "stream": name,
        "records": await _fields(request, result.records),
        "cursor": result.cursor,
        "coverage": result.coverage,
        "log_start_offset": result.log_start_offset,
        "high_watermark": result.high_watermark,
        "index": result.index,
        "term": result.term,
        "lag_ms": result.lag_ms,
    }


async def _fields(request: web.Request, records: Sequence[StoredRecord]) -> list[dict[str, Any]]:
    as_fields = msgpack_fields if prefers_msgpack(request) else json_fields
    fields: list[dict[str, Any]] = []
    for first in range(0, len(records), SLICE_RECORDS):
        if first:
            await asyncio.sleep(0)
        fields += map(as_fields, records[first : first + SLICE_RECORDS])
    return fields


async def get_key(request: web.Request) -> web.Response:
    """GET /v1/streams/{stream}/keys/{key}

    A key whose newest record is a tombstone is unknown: it would be after compaction, too.
    """
    name = stream_name(request, writes=False)
    query = read_query(request, KeyQuery)
    key = unquote_to_bytes(request.rel_url.raw_path.rpartition("/")[2])
    context = context_of(request)
    await reach_level(request, query)
    info = await with_stream(context, name)
    as_of = None if isinstance(query.as_of, UnsetType) else query.as_of
    if as_of is not None and as_of >= info.high_watermark:
        await before_refusing(context)
    replica = context.live_replica()
    try:
        record = await replica.newest(name, key, as_of)
    except UnknownKey:
        if query.consistency != "local":
            raise
        await before_refusing(context)
        record = await replica.newest(name, key, as_of)
    check_lag(query, replica.lag_ms)
    fields = await _fields(request, [record])
    return answer(request, fields[0])
