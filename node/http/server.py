"""The listening socket and the application behind it."""

from __future__ import annotations

import asyncio
import os
import socket

from aiohttp import web

from ..door.arrival import Arrival
from ..door.feeds import Feeds
from .app import build_app
from .context import Context

_BACKLOG = 1024
"""Connections that the system keeps until they are accepted."""
_ACCEPTED_MAX = 16
"""At a time. When no more files may be opened, asyncio fails so often, and sets as many timers."""


class HttpServer:
    """Answers from `start` to `close`; what it answers depends on the context."""

    def __init__(self, context: Context, runner: web.AppRunner, server: asyncio.Server) -> None:
        self._context = context
        self._runner = runner
        self._server = server

    @classmethod
    async def start(cls, context: Context) -> HttpServer:
        """Listen at the configured address; raises OSError if that is not to be had."""
        loop = asyncio.get_running_loop()
        context.feeds = Feeds(context)
        runner = web.AppRunner(build_app(context), shutdown_timeout=1.0)
        await runner.setup()
        manager = runner.server
        assert manager is not None
        host, port = context.config.http
        try:
            server = await loop.create_server(
                lambda: Arrival(context, manager), host, port, backlog=_ACCEPTED_MAX
            )
            _keep_waiting(server, _BACKLOG)
        except OSError:
            await runner.cleanup()
            raise
        return cls(context, runner, server)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for those under way; False if the time was not enough."""
        self._context.stop_intake()
        try:
            async with asyncio.timeout(timeout_s):
                await self._context.idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        self._server.close()
        for transport in list(self._context.strangers):
            transport.close()
        await self._runner.cleanup()


def _keep_waiting(server: asyncio.Server, count: int) -> None:
    """Have the system keep so many connections: asyncio has one number for this and for how many it
    accepts at a time.
    """
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(count)
