"""One client's connection: bounded in number, watched for silence, polite to who speaks no HTTP.

aiohttp answers malformed requests before any handler runs, in plain text; here they get a problem
like all others.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web

from .context import Context
from .headers import stamp
from .problems import Problem, problem_response

FIRST_REQUEST_TIMEOUT_S: Final = 30.0
"""A connection whose first request is not complete by then is closed."""
KEEPALIVE_TIMEOUT_S: Final = 75.0


class Connection(web.RequestHandler):
    """Beyond `connections_max` a client is told so; beyond twice as many it is cut off."""

    __slots__ = ("_context", "_silence", "is_surplus", "poll")

    def __init__(
        self, context: Context, server: web.Server, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            access_log=None,  # type: ignore[arg-type]  # the documented way to have none
            auto_decompress=False,
        )
        self._context = context
        self._silence: asyncio.TimerHandle | None = None
        self.is_surplus = False
        self.poll: asyncio.Task[Any] | None = None
        """The task of a read that waits: it ends with the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._context.connections += 1
        limit = self._context.config.connections_max
        self.is_surplus = self._context.connections > limit
        if self._context.connections > 2 * limit:
            cast("asyncio.Transport", transport).abort()
            return
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(FIRST_REQUEST_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._context.connections -= 1
        self.heard()
        super().connection_lost(exc)
        if self.poll is not None:
            self.poll.cancel()

    def heard(self) -> None:
        """The first request is complete."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what escaped every handler; the connection closes."""
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is there to be answered, and it is nobody's error
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        reason = (message or "malformed").splitlines()[0][:200]
        problem = Problem("invalid_request", f"this is no HTTP request: {reason}")
        request_id = self._context.request_id(None)
        response = problem_response(problem, request_id)
        stamp(self._context, response, request_id)
        response.force_close()
        return response
