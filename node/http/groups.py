"""Consumer groups: committed offsets, and leases that say who may commit."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from ...replication.errors import UnknownGroup
from ...replication.types import GroupInfo, OffsetCommit
from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .levels import before_refusing, reach_level, with_stream
from .problems import invalid
from .queries import Count, LevelQuery, WriteQuery, read_query
from .streams import checked_name, stream_name

TTL_MS_DEFAULT: Final = 30_000
TTL_MS_MAX: Final = 24 * 3600 * 1000

Member: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
LeaseNumber: TypeAlias = Count | UnsetType | None
"""A missing lease and null are the same."""


class CommitBody(msgspec.Struct, forbid_unknown_fields=True):
    offset: Count
    lease: LeaseNumber = UNSET


class LeaseBody(msgspec.Struct, forbid_unknown_fields=True):
    member: Member
    ttl_ms: Annotated[int, Meta(ge=1, le=TTL_MS_MAX)] | UnsetType = UNSET


class ReleaseBody(msgspec.Struct, forbid_unknown_fields=True):
    lease: LeaseNumber = UNSET
    member: Member | UnsetType = UNSET


_COMMIT_FORM = Form.same(CommitBody)
_LEASE_FORM = Form.same(LeaseBody)
_RELEASE_FORM = Form.same(ReleaseBody)


def lease_number(given: LeaseNumber) -> int | None:
    return None if isinstance(given, UnsetType) else given


def _group_name(request: web.Request, *, writes: bool) -> str:
    return checked_name("group", request.match_info["group"], writes=writes)


async def put_offset(request: web.Request, query: WriteQuery) -> web.Response:
    """PUT /v1/groups/{group}/streams/{stream}/offset; on the leader."""
    group, stream = _group_name(request, writes=True), stream_name(request, writes=True)
    body = await read_struct(request, _COMMIT_FORM)
    commit = OffsetCommit(group, stream, body.offset, lease_number(body.lease))
    replica = context_of(request).live_replica()
    receipt = await replica.commit_offset(commit, timeout_s=query.timeout_ms / 1000)
    return answer(request, asdict(receipt))


async def acquire_lease(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/groups/{group}/streams/{stream}/lease; on the leader."""
    group, stream = _group_name(request, writes=True), stream_name(request, writes=True)
    body = await read_struct(request, _LEASE_FORM)
    ttl_ms = TTL_MS_DEFAULT if isinstance(body.ttl_ms, UnsetType) else body.ttl_ms
    replica = context_of(request).live_replica()
    grant = await replica.acquire_lease(
        group, stream, body.member, ttl_ms, timeout_s=query.timeout_ms / 1000
    )
    return answer(request, asdict(grant))


async def release_lease(request: web.Request, query: WriteQuery) -> web.Response:
    """DELETE /v1/groups/{group}/streams/{stream}/lease; on the leader."""
    group, stream = _group_name(request, writes=True), stream_name(request, writes=True)
    body = await read_struct(request, _RELEASE_FORM)
    lease = lease_number(body.lease)
    member = None if isinstance(body.member, UnsetType) else body.member
    if lease is None and member is None:
        raise invalid("lease", "this field is needed, or member")
    replica = context_of(request).live_replica()
    await replica.release_lease(
        group, stream, lease=lease, member=member, timeout_s=query.timeout_ms / 1000
    )
    return web.Response(status=204)


async def delete_group(request: web.Request, query: WriteQuery) -> web.Response:
    """DELETE /v1/groups/{group}; on the leader."""
    group = _group_name(request, writes=True)
    replica = context_of(request).live_replica()
    await replica.delete_group(group, timeout_s=query.timeout_ms / 1000)
    return web.Response(status=204)


async def get_offset(request: web.Request) -> web.Response:
    """GET /v1/groups/{group}/streams/{stream}/offset"""
    group, stream = _group_name(request, writes=False), stream_name(request, writes=False)
    await reach_level(request, read_query(request, LevelQuery))
    context = context_of(request)
    await with_stream(context, stream)
    try:
        position = context.live_replica().group_position(group, stream)
    except UnknownGroup:
        await before_refusing(context)
        position = context.live_replica().group_position(group, stream)
    return answer(request, asdict(position) | {"index": context.live_replica().applied_index})


async def get_group(request: web.Request) -> web.Response:
    """GET /v1/groups/{group}"""
    group = _group_name(request, writes=False)
    await reach_level(request, read_query(request, LevelQuery))
    context = context_of(request)
    try:
        info = context.live_replica().group(group)
    except UnknownGroup:
        await before_refusing(context)
        info = context.live_replica().group(group)
    return answer(request, _describe(info))


async def list_groups(request: web.Request) -> web.Response:
    """GET /v1/groups"""
    await reach_level(request, read_query(request, LevelQuery))
    groups = context_of(request).live_replica().groups()
    return answer(request, {"groups": [_describe(info) for info in groups]})


def _describe(info: GroupInfo) -> dict[str, object]:
    """In a group's own description its name is not said again for every stream."""
    positions = [asdict(position) for position in info.streams]
    for position in positions:
        del position["group"]
    return {"name": info.name, "streams": positions}
