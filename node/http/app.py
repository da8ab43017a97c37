"""The aiohttp application: routes, and what happens around every request."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import Final, cast

from aiohttp import HttpVersion11, web

from ...replication.errors import ReplicationError
from . import cluster, groups, health, indexes, producers, reads, records, search, streams, tx
from .bodies import check_body_headers
from .connection import Connection
from .context import CONTEXT, REQUEST_ID, TAKEN, Context, context_of
from .forward import Forwarder, Handler, on_leader
from .headers import stamp
from .problems import Problem, invalid, problem_of, problem_response
from .queries import AppendQuery

logger = logging.getLogger(__name__)

_STREAM: Final = "/v1/streams/{stream:[^/]+}"
_GROUP: Final = "/v1/groups/{group:[^/]+}"
_POSITION: Final = _GROUP + "/streams/{stream:[^/]+}"
_INDEX: Final = _STREAM + "/indexes/{index:[^/]+}"
_WATCHED: Final = ("/livez", "/readyz", "/metrics")
"""These answer also while the node stops."""


async def _metrics(request: web.Request) -> web.Response:
    from .metrics import get_metrics

    return await get_metrics(request)


ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("GET", "/v1/streams", streams.list_streams),
    ("GET", _STREAM, streams.get_stream),
    ("PUT", _STREAM, on_leader(streams.put_stream)),
    ("PATCH", _STREAM, on_leader(streams.patch_stream)),
    ("DELETE", _STREAM, on_leader(streams.delete_stream)),
    ("POST", _STREAM + "/trim", on_leader(streams.trim)),
    ("POST", _STREAM + "/records", on_leader(records.append, AppendQuery)),
    ("GET", _STREAM + "/records", reads.read_records),
    ("GET", _STREAM + "/idempotency/{key:[^/]+}", records.get_receipt),
    ("GET", _STREAM + "/keys/{key:[^/]+}", search.get_key),
    ("GET", _STREAM + "/indexes", indexes.list_indexes),
    ("PUT", _INDEX, on_leader(indexes.put_index)),
    ("GET", _INDEX, indexes.get_index),
    ("DELETE", _INDEX, on_leader(indexes.delete_index)),
    ("GET", _STREAM + "/search", search.search),
    ("POST", "/v1/producers", on_leader(producers.register)),
    ("POST", "/v1/tx", on_leader(tx.transact)),
    ("GET", "/v1/groups", groups.list_groups),
    ("GET", _GROUP, groups.get_group),
    ("DELETE", _GROUP, on_leader(groups.delete_group)),
    ("GET", _POSITION + "/offset", groups.get_offset),
    ("PUT", _POSITION + "/offset", on_leader(groups.put_offset)),
    ("POST", _POSITION + "/lease", on_leader(groups.acquire_lease)),
    ("DELETE", _POSITION + "/lease", on_leader(groups.release_lease)),
    ("GET", "/v1/cluster", cluster.get_cluster),
    ("POST", "/v1/cluster/leader", on_leader(cluster.transfer_leadership)),
    ("POST", "/v1/cluster/members", on_leader(cluster.add_member)),
    ("DELETE", "/v1/cluster/members/{member:[^/]+}", on_leader(cluster.remove_member)),
    ("GET", "/livez", health.livez),
    ("HEAD", "/livez", health.livez),
    ("GET", "/readyz", health.readyz),
    ("HEAD", "/readyz", health.readyz),
    ("GET", "/metrics", _metrics),
)

NOT_BUILT: Final = (
    ("GET", "/v1/openapi.json"),
    ("GET", "/"),
)
"""The contract names these; they answer 501 until they exist."""


def build_app(context: Context) -> web.Application:
    app = web.Application(middlewares=[around])
    app[CONTEXT] = context
    app.cleanup_ctx.append(_forwarder)
    app.on_response_prepare.append(_on_prepare)
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler, expect_handler=_on_expect)
    for method, path in NOT_BUILT:
        app.router.add_route(method, path, _not_built, expect_handler=_on_expect)
    return app


async def _forwarder(app: web.Application) -> AsyncIterator[None]:
    app[CONTEXT].forwarder = Forwarder()
    yield
    await app[CONTEXT].forwarder.close()


async def _not_built(request: web.Request) -> web.StreamResponse:
    raise Problem("not_implemented", f"{request.method} {request.path[:200]} is not built yet")


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measure the request, and answer it."""
    context = context_of(request)
    began = time.perf_counter()
    response: web.StreamResponse | None = None
    try:
        response = await _respond(context, request, handler)
    finally:
        context.traffic.count(request, response, time.perf_counter() - began)
    return response


async def _respond(context: Context, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request as under way, answer failures, give back what its body took."""
    with context.counted():
        try:
            _admit(request, context)
            return await handler(request)
        except Exception as error:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has gone") from error
            return _failure(request, error)
        finally:
            context.bodies.give_back(request.get(TAKEN, 0))


def _admit(request: web.Request, context: Context) -> None:
    connection = cast("Connection", request.protocol)
    connection.place.heard()
    request[REQUEST_ID] = context.request_id(request.headers.get("Cute-Request-Id"))
    if connection.place.is_surplus:
        raise Problem("throttled", f"{context.connections} connections are open already")
    if request.path not in _WATCHED:
        context.check_stopping()


def _failure(request: web.Request, error: Exception) -> web.Response:
    context = context_of(request)
    if isinstance(error, web.HTTPException):
        problem = _from_aiohttp(request, error)
    elif isinstance(error, Problem | ReplicationError):
        problem = problem_of(error, writes=_writes(request))
    else:
        logger.exception("request failed", extra={"request_id": request[REQUEST_ID]})
        problem = problem_of(error, writes=_writes(request))
    response = problem_response(problem, request[REQUEST_ID])
    if context.stopping or cast("Connection", request.protocol).place.is_surplus:
        response.force_close()
    return response


def _writes(request: web.Request) -> bool:
    return request.method not in ("GET", "HEAD", "OPTIONS")


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    """Return the problem for a path or a method that no route takes."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        problem = Problem(
            "method_not_allowed", f"{request.method[:20]} is not taken here, {allowed} is"
        )
        problem.headers["Allow"] = allowed
        return problem
    if isinstance(error, web.HTTPNotFound):
        return Problem("not_found", f"there is nothing at {request.path[:200]}")
    return Problem("invalid_request", error.reason)


async def _on_expect(request: web.Request) -> web.StreamResponse | None:
    """Let a client that asks first send its body, unless its headers show that it is refused."""
    request_id = context_of(request).request_id(request.headers.get("Cute-Request-Id"))
    request[REQUEST_ID] = request_id
    if request.version < HttpVersion11:
        return None
    try:
        if request.headers["Expect"].lower() != "100-continue":
            raise invalid("Expect", "100-continue is all that is met here")
        check_body_headers(request)
    except Problem as problem:
        response = problem_response(problem, request_id)
        response.force_close()
        return response
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None


async def _on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    stamp(context_of(request), response, request.get(REQUEST_ID, ""))
