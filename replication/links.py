"""The two ends of a connection between nodes, on asyncio.

A node speaks on the connections it dialled (`Outbound`) and listens on those the others dialled
(`Inbound`). The first frame is a `Hello`; who is not welcome is told why (`Refusal`). Whatever does
not decode closes its connection and nothing else.

Bounds: a frame is checked against `FRAME_BYTES_MAX` before it is allocated, a stranger's against
`HELLO_BYTES_MAX`; a connection whose send buffer passes `SEND_BUFFER_BYTES_MAX` is broken off
(Raft's per-follower window keeps far below it); strangers are limited in number and have
`HELLO_TIMEOUT_S` to introduce themselves.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol, cast

from .config import Address
from .messages import (
    FRAME_BYTES_MAX,
    FRAME_HEAD,
    BadFrame,
    Hello,
    Message,
    Refusal,
    decode_message,
    encode_frame,
)

logger = logging.getLogger(__name__)

SEND_BUFFER_BYTES_MAX = 96 << 20
JOINED_BYTES_MAX = 32 << 10
"""Head and body of a smaller frame leave together; copying a larger one costs more than a call."""
HELLO_BYTES_MAX = 4096
"""A stranger's first frame; what strangers send is kept in memory, and there may be many."""
REFUSAL_BYTES_MAX = 4096
REFUSAL_LINGER_S = 0.25
"""So long the refused has to read why before its connection is broken off."""
HELLO_TIMEOUT_S = 5.0
STRANGERS_MAX = 32
KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
"""A node that dialled and whose machine is gone is noticed after these seconds and probes."""
SILENT_LINK_MS = 5_000
"""A link whose data stays unacknowledged this long is dead (TCP_USER_TIMEOUT)."""


class Inbox(Protocol):
    """Who hears of messages and connections."""

    def introduced(self, peer: str, incarnation: str) -> None: ...
    def receive(self, peer: str, message: Message) -> None: ...
    def connected(self, peer: str) -> None: ...
    def disconnected(self, peer: str) -> None: ...
    def still_receiving(self, peer: str) -> None: ...


class Hub(Protocol):
    """Where links come together: who knows them all, and who is welcome."""

    addresses: dict[str, Address]
    strangers: set[Inbound]
    inbound: dict[str, Inbound]
    outbound: dict[str, Outbound]

    @property
    def inbox(self) -> Inbox: ...

    def hello(self, peer: str) -> Hello: ...
    def introduced(self, link: Inbound, hello: Hello) -> None:
        """A stranger said who it is; Refused if it has no business here."""

    def lost(self, link: Outbound) -> None: ...
    def was_refused(self, peer: str, refusal: Refusal) -> None: ...


class Refused(Exception):
    """The node at the other end of a connection is not welcome."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Inbound(asyncio.Protocol):
    """A connection another node dialled: it only listens."""

    def __init__(self, peers: Hub) -> None:
        self.transport: asyncio.Transport
        self._peers = peers
        self.incarnation = ""
        self._peer: str | None = None
        self._is_refused = False
        self._buffer = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if len(self._peers.strangers) >= STRANGERS_MAX:
            self.transport.abort()
            return
        self._peers.strangers.add(self)
        _watch(self.transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HELLO_TIMEOUT_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.strangers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._peer is not None and self._peers.inbound.get(self._peer) is self:
            del self._peers.inbound[self._peer]

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._buffer += data
        try:
            consumed = self._take_frames()
        except Refused as error:
            self._refuse(error.refusal)
            return
        except BadFrame as error:
            address = self.transport.get_extra_info("peername")
            logger.warning(
                "refused a connection",
                extra={"peer": self._peer, "address": address, "reason": str(error)},
            )
            self.transport.abort()
            return
        del self._buffer[:consumed]
        if self._buffer and self._peer is not None:
            self._peers.inbox.still_receiving(self._peer)

    def _refuse(self, refusal: Refusal) -> None:
        self._is_refused = True
        self._buffer.clear()
        self.transport.write(b"".join(encode_frame(refusal)))
        loop = asyncio.get_running_loop()
        loop.call_later(REFUSAL_LINGER_S, self.transport.abort)

    def _take_frames(self) -> int:
        """Hand every complete frame on; returns how many bytes they took."""
        position = 0
        while len(self._buffer) - position >= FRAME_HEAD.size:
            size, digest = FRAME_HEAD.unpack_from(self._buffer, position)
            if size > (HELLO_BYTES_MAX if self._peer is None else FRAME_BYTES_MAX):
                raise BadFrame(f"a frame of {size} bytes")
            body = position + FRAME_HEAD.size
            if len(self._buffer) < body + size:
                break
            with memoryview(self._buffer) as whole, whole[body : body + size] as view:
                message = decode_message(view, digest)
            self._take(message)
            position = body + size
        return position

    def _take(self, message: Message) -> None:
        peers = self._peers
        if self._peer is None:
            if not isinstance(message, Hello):
                raise BadFrame("the first frame is not a hello")
            peers.introduced(self, message)
            self._peer, self.incarnation = message.node, message.incarnation
            if self._deadline is not None:
                self._deadline.cancel()
        elif peers.inbound.get(self._peer) is self:
            peers.inbox.receive(self._peer, message)


class Outbound(asyncio.Protocol):
    """A connection this node dialled: it only speaks."""

    def __init__(self, peers: Hub, peer: str) -> None:
        self.peer = peer
        self.transport: asyncio.Transport
        self.was_refused = False
        self._peers = peers
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.peer in self._peers.outbound or self.peer not in self._peers.addresses:
            self.transport.abort()
            return
        raw = self.transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_LINK_MS)
        self.send(self._peers.hello(self.peer))
        self._peers.outbound[self.peer] = self
        self._peers.inbox.connected(self.peer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.lost(self)

    def data_received(self, data: bytes) -> None:
        """All that can come back is a refusal."""
        self._buffer += data
        if len(self._buffer) < FRAME_HEAD.size:
            return
        size, digest = FRAME_HEAD.unpack_from(self._buffer)
        if size <= REFUSAL_BYTES_MAX and len(self._buffer) < FRAME_HEAD.size + size:
            return
        try:
            if size > REFUSAL_BYTES_MAX:
                raise BadFrame(f"a refusal of {size} bytes")
            body = bytes(self._buffer[FRAME_HEAD.size : FRAME_HEAD.size + size])
            message = decode_message(memoryview(body), digest)
            if isinstance(message, Refusal):
                self.was_refused = True
                self._peers.was_refused(self.peer, message)
        except BadFrame as error:
            logger.warning("a bad answer", extra={"peer": self.peer, "reason": str(error)})
        self.transport.abort()

    def send(self, message: Message) -> None:
        head, body = encode_frame(message)
        if self.transport.get_write_buffer_size() + len(body) > SEND_BUFFER_BYTES_MAX:
            self.transport.abort()
        elif len(body) <= JOINED_BYTES_MAX:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)


def _watch(transport: asyncio.Transport) -> None:
    """Have the kernel notice when the machine at the other end is gone."""
    raw = transport.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_KEEPIDLE"):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
