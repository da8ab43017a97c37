"""How new an answer is: local, bounded, linearizable, and the session token `after`."""

from __future__ import annotations

import contextlib
from typing import Final

from aiohttp import web
from msgspec import UnsetType

from ...replication.errors import NoLeader, NotCaughtUp, TooStale, UnknownStream
from ...replication.types import StreamInfo
from .context import Context, context_of
from .problems import invalid
from .queries import LevelQuery

LEVEL_TIMEOUT_S: Final = 5.0
"""Longest wait for an index, or for the leader's word, before a read is refused."""
_SECOND_LOOK_S: Final = 1.0


async def reach_level(request: web.Request, query: LevelQuery) -> None:
    """Return once local state is as new as `query` wants it.

    Raises Problem `invalid_request`, `throttled`; NotCaughtUp, TooStale, NoLeader.
    """
    bounded = query.consistency == "bounded"
    if bounded and isinstance(query.max_lag_ms, UnsetType):
        raise invalid("max_lag_ms", "this parameter is needed with consistency=bounded")
    if not bounded and not isinstance(query.max_lag_ms, UnsetType):
        raise invalid("max_lag_ms", "this parameter goes with consistency=bounded only")
    context = context_of(request)
    replica = context.live_replica()
    if not isinstance(query.after, UnsetType) and replica.applied_index < query.after:
        with context.waiting(request):
            await replica.wait_applied(query.after, timeout_s=LEVEL_TIMEOUT_S)
    if query.consistency == "linearizable":
        await replica.read_barrier(timeout_s=LEVEL_TIMEOUT_S)
    check_lag(query, replica.lag_ms)


def check_lag(query: LevelQuery, lag_ms: int) -> None:
    """Raise TooStale if `lag_ms` is more than a bounded read takes."""
    if query.consistency != "bounded" or isinstance(query.max_lag_ms, UnsetType):
        return
    if lag_ms > query.max_lag_ms:
        raise TooStale(
            f"this node heard from the leader {lag_ms} ms ago",
            lag_ms=lag_ms,
            max_lag_ms=query.max_lag_ms,
        )


async def with_stream(context: Context, name: str) -> StreamInfo:
    """Return the stream as it is here. Raises UnknownStream if it is nowhere."""
    replica = context.live_replica()
    try:
        return replica.stream(name)
    except UnknownStream:
        await before_refusing(context)
    return replica.stream(name)


async def before_refusing(context: Context) -> None:
    """Catch up with the leader, so that a follower refuses only what is not there anywhere.

    Whoever created a stream or appended to it on another node a moment ago would otherwise be told
    that it does not exist. Nobody to ask: what is known here has to do.
    """
    replica = context.live_replica()
    if not replica.is_leader:
        with contextlib.suppress(NoLeader, NotCaughtUp):
            await replica.read_barrier(timeout_s=_SECOND_LOOK_S)
