"""The headers that every response carries."""

from __future__ import annotations

from aiohttp import web

from .context import Context


def stamp(context: Context, response: web.StreamResponse, request_id: str) -> None:
    """Say who served this, and how far it is; what another node said already stays."""
    headers = response.headers
    headers["Cute-Request-Id"] = request_id
    if "Cute-Node" in headers:
        return
    replica = context.replica
    headers["Cute-Node"] = context.config.id
    headers["Cute-Leader"] = (replica.leader_id or "") if replica else ""
    headers["Cute-Term"] = str(replica.term if replica else 0)
    headers["Cute-Index"] = str(replica.applied_index if replica else 0)
