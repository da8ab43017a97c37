"""The cluster: who is in it, who leads, and who shall."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from ..addresses import Address, is_loopback, parse_address
from ..config import NODE_ID
from ..nearest import unknown
from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .problems import invalid
from .queries import Query, WriteQuery, read_query


class LeaderBody(msgspec.Struct, forbid_unknown_fields=True):
    node: str | UnsetType = UNSET


class MemberBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    raft: str
    role: Literal["voter", "learner"] = "voter"


_FORM = Form.same(LeaderBody)
_MEMBER_FORM = Form.same(MemberBody)


async def get_cluster(request: web.Request) -> web.Response:
    """GET /v1/cluster"""
    read_query(request, Query)
    return answer(request, asdict(context_of(request).live_replica().status()))


async def transfer_leadership(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/cluster/leader; on the leader."""
    body = await read_struct(request, _FORM, empty=LeaderBody())
    replica = context_of(request).live_replica()
    node = None if isinstance(body.node, UnsetType) else body.node
    members = [member.id for member in replica.status().nodes]
    if node is not None and node not in members:
        raise invalid("node", unknown("node", node, members))
    leader = await replica.transfer_leadership(node, timeout_s=query.timeout_ms / 1000)
    return answer(request, {"leader": leader})


async def add_member(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/cluster/members; on the leader."""
    body = await read_struct(request, _MEMBER_FORM)
    if not NODE_ID.fullmatch(body.id):
        raise invalid("id", "letters, digits and . _ - up to 63, as in 'n1'")
    context = context_of(request)
    address = _raft_address(body.raft, is_insecure=context.config.insecure)
    member = await context.live_replica().add_member(
        body.id, address, body.role, timeout_s=query.timeout_ms / 1000
    )
    return answer(request, asdict(member))


def _raft_address(text: str, *, is_insecure: bool) -> Address:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise invalid("raft", str(error)) from error
    if not is_insecure and not is_loopback(address[0]):
        raise invalid("raft", "no loopback address, and the nodes do not run with insecure = true")
    return address


async def remove_member(request: web.Request, query: WriteQuery) -> web.Response:
    """DELETE /v1/cluster/members/{id}; on the leader, which leaves leadership to another first."""
    node = request.match_info["member"]
    replica = context_of(request).live_replica()
    await replica.remove_member(node, timeout_s=query.timeout_ms / 1000)
    return answer(request, {"id": node})
