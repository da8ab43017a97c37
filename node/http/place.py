"""One connection's place among those that are open: bounded in number, watched for silence."""

from __future__ import annotations

import asyncio
from typing import Final

from .context import Context

FIRST_REQUEST_TIMEOUT_S: Final = 30.0
"""A connection whose first request is not complete by then is closed."""


class Place:
    """Beyond `connections_max` a client is told so; beyond twice as many it is cut off."""

    __slots__ = ("_context", "_silence", "is_surplus")

    def __init__(self, context: Context, transport: asyncio.Transport) -> None:
        self._context = context
        self._silence: asyncio.TimerHandle | None = None
        context.connections += 1
        limit = context.config.connections_max
        self.is_surplus = context.connections > limit
        if context.connections > 2 * limit:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(FIRST_REQUEST_TIMEOUT_S, transport.close)

    def heard(self) -> None:
        """The first request is complete."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def leave(self) -> None:
        """The connection is lost."""
        self._context.connections -= 1
        self.heard()
