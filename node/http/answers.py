"""Successful answers: a dict, as JSON or msgpack, whichever the client prefers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from .bodies import JSON, MSGPACK

_to_json = msgspec.json.Encoder().encode
_to_msgpack = msgspec.msgpack.Encoder().encode


def answer(request: web.Request, body: Mapping[str, Any], status: int = 200) -> web.Response:
    if prefers_msgpack(request):
        return web.Response(body=_to_msgpack(body), status=status, content_type=MSGPACK)
    return web.Response(body=_to_json(body), status=status, content_type=JSON)


def prefers_msgpack(request: web.Request) -> bool:
    """Whether `Accept` names msgpack, and JSON at most as an equal."""
    accept = request.headers.get("Accept")
    if accept is None or MSGPACK not in accept:
        return False
    weights = accepted(accept)
    return 0 < weights.get(MSGPACK, 0) >= weights.get(JSON, 0)


def accepted(accept: str) -> dict[str, float]:
    """Return the media types of an `Accept` header with their weights, 0 … 1."""
    weights = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[name] = weight
    return weights
