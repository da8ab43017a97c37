"""The fast door by hand: a client of frames, and a node that plays what a test wants."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgpack

from cute_logger.client.batch_format import pack_rows, row_of
from cute_logger.client.record import Record

PREAMBLE = b"CUTE\x00\x00\x01\n"
HELLO, APPEND, RECEIPT, PROBLEM = 1, 2, 3, 4
DEADLINE_S = 10.0


class Frame(NamedTuple):
    request_id: int
    kind: int
    payload: bytes

    def body(self) -> dict[str, Any]:
        return msgpack.unpackb(self.payload)

    def problem(self) -> dict[str, Any]:
        assert self.kind == PROBLEM
        return self.body()["problem"]


def frame(request_id: int, kind: int, payload: bytes) -> bytes:
    return struct.pack("<IIB", 5 + len(payload), request_id, kind) + payload


def batch(*values: bytes, stamp: tuple[int, int, int] | None = None) -> bytes:
    return pack_rows([row_of(Record(value)) for value in values]).with_stamp(stamp)


def append(request_id: int, body: bytes, **head: Any) -> bytes:
    packed = msgpack.packb({"stream": "orders", "timeout_ms": 5_000} | head)
    return frame(request_id, APPEND, struct.pack("<H", len(packed)) + packed + body)


class DoorEnd:
    """One end of a connection, after the preamble."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def frame(self) -> Frame:
        async with asyncio.timeout(DEADLINE_S):
            size, request_id, kind = struct.unpack("<IIB", await self.reader.readexactly(9))
            return Frame(request_id, kind, await self.reader.readexactly(size - 5))

    async def frames(self, count: int) -> dict[int, Frame]:
        """Return the next frames by their request ids."""
        came = [await self.frame() for _ in range(count)]
        return {each.request_id: each for each in came}

    async def until_closed(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self.reader.read(1 << 16):
                pass


@asynccontextmanager
async def door(address: tuple[str, int], preamble: bytes = PREAMBLE) -> AsyncIterator[DoorEnd]:
    """Connect to a node and say `preamble`."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(preamble)
        yield DoorEnd(reader, writer)
    finally:
        writer.transport.abort()


Play = Callable[[DoorEnd, Frame], Awaitable[None]]


class ScriptedDoor:
    """A node that has nothing but a door."""

    def __init__(self, play: Play, *, greets: bool = True) -> None:
        self.greets = greets
        self.appends: list[Frame] = []
        self.connections = 0
        self.url = ""
        self._play = play
        self._server: asyncio.Server
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedDoor:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(DoorEnd(reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, end: DoorEnd) -> None:
        self.connections += 1
        try:
            assert await end.reader.readexactly(8) == PREAMBLE
            if self.greets:
                hello = {"version": 1, "node": "n1", "leader": "n1"}
                hello |= {"frame_bytes_max": 1 << 23, "requests_max": 8}
                end.send(frame(0, HELLO, msgpack.packb(hello)))
            while True:
                came = await end.frame()
                self.appends.append(came)
                await self._play(end, came)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            end.writer.transport.abort()


def receipt(request_id: int, first_offset: int = 0, **more: Any) -> bytes:
    body = {"stream": "orders", "first_offset": first_offset, "last_offset": first_offset}
    body |= {"count": 1, "timestamp": 1, "term": 1, "index": 7, "duplicate": False}
    said = {"receipt": body | {"durability": "quorum"}, "node": "n1", "leader": "n1"}
    return frame(request_id, RECEIPT, msgpack.packb(said | {"term": 1, "index": 7} | more))


def problem(request_id: int, status: int, code: str, **facts: Any) -> bytes:
    told = {"code": code, "status": status, "detail": f"it is {code}", "side_effect": "none"}
    said = {"problem": told | facts, "retry_after_s": None, "node": "n1", "leader": None}
    return frame(request_id, PROBLEM, msgpack.packb(said | {"term": 1, "index": 7}))
