"""Is the process alive, and can it serve?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from aiohttp import web

from .answers import answer
from .context import Context, context_of
from .problems import Problem

DAMAGED_MAX: Final = 10
"""Damaged places named."""


async def livez(request: web.Request) -> web.Response:
    """GET /livez: also during recovery and while stopping."""
    return answer(request, {"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: is a member, has a leader and has caught up.

    A node that repairs damaged segments serves all the rest, and says where, as `damaged`.
    """
    context = context_of(request)
    reason = why_not_ready(context)
    if reason is not None:
        raise Problem("not_ready", f"this node is not ready: {reason}", reason=reason)
    body: dict[str, object] = {"status": "ready"}
    damaged = context.replica.damaged(DAMAGED_MAX) if context.replica is not None else []
    if damaged:
        body["damaged"] = [asdict(place) for place in damaged]
    return answer(request, body)


def why_not_ready(context: Context) -> str | None:
    replica = context.replica
    if context.stopping:
        return "stopping"
    if replica is None:
        return "recovering"
    if replica.is_repairing and not replica.ready:
        return "repairing"
    if not replica.is_member:
        return "not_a_member"
    if replica.leader_id is None:
        return "no_leader"
    return None if replica.ready else "catching_up"
