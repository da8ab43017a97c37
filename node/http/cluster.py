"""The cluster: who is in it, who leads, and who shall."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from ..nearest import unknown
from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .problems import invalid
from .queries import Query, WriteQuery, read_query


class LeaderBody(msgspec.Struct, forbid_unknown_fields=True):
    node: str | UnsetType = UNSET


_FORM = Form.same(LeaderBody)


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
