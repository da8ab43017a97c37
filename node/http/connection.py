"""One client's connection, if it speaks HTTP; polite to who speaks neither that nor frames.

aiohttp answers malformed requests before any handler runs, in plain text; here they get a problem
like all others.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from .context import Context
from .headers import stamp
from .place import Place
from .problems import Problem, problem_response

KEEPALIVE_TIMEOUT_S: Final = 75.0


class Connection(web.RequestHandler):
    __slots__ = ("_context", "place", "poll")

    def __init__(
        self,
        context: Context,
        place: Place,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            access_log=None,  # type: ignore[arg-type]  # the documented way to have none
            auto_decompress=False,
        )
        self._context = context
        self.place = place
        self.poll: asyncio.Task[Any] | None = None
        """The task of a read that waits: it ends with the connection."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self.place.leave()
        super().connection_lost(exc)
        if self.poll is not None:
            self.poll.cancel()

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
