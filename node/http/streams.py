"""Streams: create, look at, list, alter, trim, delete."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final

import msgspec
from aiohttp import web

from ...replication.types import StreamInfo
from ..streams_config import (
    Given,
    SettingNotBuilt,
    StreamConfigError,
    complete_stream_config,
    parse_stream_config,
)
from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .levels import reach_level, with_stream
from .problems import Problem, invalid
from .queries import Count, LevelQuery, WriteQuery, read_query

STREAM_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}", re.ASCII)


class StreamBody(msgspec.Struct, forbid_unknown_fields=True):
    config: dict[str, Given] | msgspec.UnsetType = msgspec.UNSET


class AlterBody(msgspec.Struct, forbid_unknown_fields=True):
    config: dict[str, Given]


class TrimBody(msgspec.Struct, forbid_unknown_fields=True):
    before: Count


_STREAM_FORM = Form.same(StreamBody)
_ALTER_FORM = Form.same(AlterBody)
_TRIM_FORM = Form.same(TrimBody)


def stream_name(request: web.Request, *, writes: bool) -> str:
    """Return the stream in the path, or raise before anything else looks at it.

    Raises Problem: `invalid_request`, `forbidden`.
    """
    return checked_name("stream", request.match_info["stream"], writes=writes)


def checked_name(field: str, name: str, *, writes: bool) -> str:
    """Return the name of a stream or group, or raise as `stream_name` does."""
    if not STREAM_NAME.fullmatch(name):
        came = name if len(name) <= 128 else name[:127] + "…"
        raise invalid(field, f"came {came!r}, wanted [a-z0-9][a-z0-9._-]{{0,127}}")
    if writes and name.startswith("_"):
        raise Problem("forbidden", f"{field} {name}: names that begin with _ are the system's")
    return name


def describe(info: StreamInfo) -> dict[str, Any]:
    return asdict(info) | {"config": dict(info.config)}


async def put_stream(request: web.Request, query: WriteQuery) -> web.Response:
    """PUT /v1/streams/{stream}; on the leader."""
    name = stream_name(request, writes=True)
    body = await read_struct(request, _STREAM_FORM, empty=StreamBody())
    given = {} if isinstance(body.config, msgspec.UnsetType) else body.config
    try:
        config = complete_stream_config(given)
    except StreamConfigError as error:
        raise _refusal(error) from error
    info, created = (
        await context_of(request)
        .live_replica()
        .create_stream(name, config, timeout_s=query.timeout_ms / 1000)
    )
    return answer(request, describe(info), status=201 if created else 200)


async def patch_stream(request: web.Request, query: WriteQuery) -> web.Response:
    """PATCH /v1/streams/{stream}; on the leader."""
    name = stream_name(request, writes=True)
    body = await read_struct(request, _ALTER_FORM)
    try:
        changes = parse_stream_config(body.config)
    except StreamConfigError as error:
        raise _refusal(error) from error
    replica = context_of(request).live_replica()
    info = await replica.alter_stream(name, changes, timeout_s=query.timeout_ms / 1000)
    return answer(request, describe(info))


def _refusal(error: StreamConfigError) -> Problem:
    field = f"config.{error.name[:100]}"
    if isinstance(error, SettingNotBuilt):
        return Problem("not_implemented", str(error), field=field)
    return invalid(field, str(error))


async def trim(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/streams/{stream}/trim; on the leader."""
    name = stream_name(request, writes=True)
    body = await read_struct(request, _TRIM_FORM)
    replica = context_of(request).live_replica()
    start = await replica.trim(name, body.before, timeout_s=query.timeout_ms / 1000)
    return answer(request, {"log_start_offset": start})


async def delete_stream(request: web.Request, query: WriteQuery) -> web.Response:
    """DELETE /v1/streams/{stream}; on the leader."""
    name = stream_name(request, writes=True)
    replica = context_of(request).live_replica()
    await replica.delete_stream(name, timeout_s=query.timeout_ms / 1000)
    return web.Response(status=204)


async def get_stream(request: web.Request) -> web.Response:
    """GET /v1/streams/{stream}"""
    name = stream_name(request, writes=False)
    query = read_query(request, LevelQuery)
    context = context_of(request)
    await reach_level(request, query)
    return answer(request, describe(await with_stream(context, name)))


async def list_streams(request: web.Request) -> web.Response:
    """GET /v1/streams"""
    query = read_query(request, LevelQuery)
    context = context_of(request)
    await reach_level(request, query)
    streams = context.live_replica().streams()
    return answer(request, {"streams": [describe(info) for info in streams]})
