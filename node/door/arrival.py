"""A connection of which nobody knows yet whether it will speak HTTP or frames."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web

from ..http.connection import Connection
from ..http.context import Context
from ..http.place import Place
from .door import Door
from .frames import PREAMBLE, PREAMBLE_BEGIN


class Arrival(asyncio.Protocol):
    """Reads until the first bytes tell, and leaves the connection to who speaks that."""

    def __init__(self, context: Context, http: web.Server) -> None:
        self._context = context
        self._http = http
        self._begun = b""
        self._place: Place
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._context.strangers.add(self._transport)
        self._place = Place(self._context, self._transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._context.strangers.discard(self._transport)
        self._place.leave()

    def data_received(self, data: bytes) -> None:
        begun = self._begun = self._begun + data
        if len(begun) < len(PREAMBLE) and PREAMBLE.startswith(begun):
            return
        successor: asyncio.Protocol
        if begun.startswith(PREAMBLE_BEGIN):
            successor = Door(self._context, self._place)
        else:
            self._context.strangers.discard(self._transport)
            loop = asyncio.get_running_loop()
            successor = Connection(self._context, self._place, self._http, loop)
        self._transport.set_protocol(successor)
        successor.connection_made(self._transport)
        successor.data_received(begun)
