"""Stands before a node, passes requests on, and loses answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self


class LossyProxy:
    """While `lose` is positive, the answer to a request that begins with `target` is not passed on:
    the connection is cut once the node has answered, and after `meanwhile`.
    """

    def __init__(
        self,
        node: tuple[str, int],
        target: bytes,
        lose: int,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.lose = lose
        self._meanwhile = meanwhile
        self.url = ""
        self._node = node
        self._target = target
        self._server: asyncio.Server
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_node, to_node = await asyncio.open_connection(*self._node)
        answers = asyncio.create_task(self._answer(from_node, writer))
        try:
            while request := await reader.read(1 << 20):
                if self.lose and request.startswith(self._target):
                    self.lose -= 1
                    answers.cancel()
                    await asyncio.wait({answers})
                    to_node.write(request)
                    await from_node.read(1)
                    if self._meanwhile is not None:
                        await self._meanwhile()
                    return
                to_node.write(request)
        finally:
            answers.cancel()
            writer.transport.abort()
            to_node.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer := await reader.read(1 << 20):
            writer.write(answer)
