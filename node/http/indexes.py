"""Secondary indexes of a stream: create, alter, look at, list, drop."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from ...replication.errors import UnknownIndex
from ...replication.indexes import IndexInfo
from ...storage.index_values import source_of
from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .levels import before_refusing, reach_level, with_stream
from .problems import invalid
from .queries import LevelQuery, WriteQuery, read_query
from .streams import stream_name

INDEX_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class IndexBody(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["btree", "bloom"]
    on: Annotated[str, Meta(min_length=1, max_length=512)]


_INDEX_FORM = Form.same(IndexBody)


def checked_index(field: str, name: str) -> str:
    """Return the name of an index. Raises Problem `invalid_request`."""
    if not INDEX_NAME.fullmatch(name):
        came = name if len(name) <= 64 else name[:63] + "…"
        raise invalid(field, f"came {came!r}, wanted [a-z0-9][a-z0-9._-]{{0,63}}")
    return name


def describe(info: IndexInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "kind": info.kind,
        "on": info.on,
        "state": info.state,
        "coverage": info.coverage,
        "lag": info.lag,
    }


async def put_index(request: web.Request, query: WriteQuery) -> web.Response:
    """PUT /v1/streams/{stream}/indexes/{index}; on the leader."""
    stream = stream_name(request, writes=True)
    name = checked_index("index", request.match_info["index"])
    body = await read_struct(request, _INDEX_FORM)
    try:
        source_of(body.on)
    except ValueError as error:
        raise invalid("on", f"{error}; came {body.on[:80]!r}") from None
    replica = context_of(request).live_replica()
    info, created = await replica.create_index(
        stream, name, body.kind, body.on, timeout_s=query.timeout_ms / 1000
    )
    return answer(request, describe(info), status=201 if created else 200)


async def delete_index(request: web.Request, query: WriteQuery) -> web.Response:
    """DELETE /v1/streams/{stream}/indexes/{index}; on the leader."""
    stream = stream_name(request, writes=True)
    name = checked_index("index", request.match_info["index"])
    replica = context_of(request).live_replica()
    await replica.drop_index(stream, name, timeout_s=query.timeout_ms / 1000)
    return web.Response(status=204)


async def get_index(request: web.Request) -> web.Response:
    """GET /v1/streams/{stream}/indexes/{index}: as this node has it."""
    stream = stream_name(request, writes=False)
    name = checked_index("index", request.match_info["index"])
    await reach_level(request, read_query(request, LevelQuery))
    context = context_of(request)
    await with_stream(context, stream)
    try:
        info = context.live_replica().index(stream, name)
    except UnknownIndex:
        await before_refusing(context)
        info = context.live_replica().index(stream, name)
    return answer(request, describe(info))


async def list_indexes(request: web.Request) -> web.Response:
    """GET /v1/streams/{stream}/indexes: as this node has them."""
    stream = stream_name(request, writes=False)
    await reach_level(request, read_query(request, LevelQuery))
    context = context_of(request)
    await with_stream(context, stream)
    infos = context.live_replica().indexes(stream)
    return answer(request, {"indexes": [describe(info) for info in infos]})
