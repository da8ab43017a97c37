"""Successful answers: a dict, as JSON or msgpack, whichever the client prefers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from .bodies import BATCHES, JSON, MSGPACK

WRITE_TIMEOUT_S: Final = 60.0
"""A client that takes longer to receive what is written is given up."""

_to_json = msgspec.json.Encoder().encode
_to_msgpack = msgspec.msgpack.Encoder().encode


def answer(request: web.Request, body: Mapping[str, Any], status: int = 200) -> web.Response:
    if prefers_msgpack(request):
        return web.Response(body=_to_msgpack(body), status=status, content_type=MSGPACK)
    return web.Response(body=_to_json(body), status=status, content_type=JSON)


@asynccontextmanager
async def delivering(request: web.Request) -> AsyncIterator[None]:
    """Write in here: raises ConnectionResetError, and cuts the client off, if it takes too long."""
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            yield
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not receive its answer") from error


def prefers_msgpack(request: web.Request) -> bool:
    """Whether `Accept` names msgpack, and JSON at most as an equal."""
    accept = request.headers.get("Accept")
    if accept is None or MSGPACK not in accept:
        return False
    weights = accepted(accept)
    return 0 < weights.get(MSGPACK, 0) >= weights.get(JSON, 0)


def prefers_batches(request: web.Request) -> bool:
    """Whether `Accept` names stored batches, and JSON and msgpack at most as equals."""
    accept = request.headers.get("Accept")
    if accept is None or BATCHES not in accept.lower():
        return False
    weights = accepted(accept)
    others = max(weights.get(JSON, 0), weights.get(MSGPACK, 0))
    return 0 < weights.get(BATCHES, 0) >= others


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
