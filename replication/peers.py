"""Connections between nodes, on asyncio.

Every node dials every other one and speaks only on the connection it dialled; what it hears comes
on those the others dialled. The first frame is a `Hello` with the sender's id; of two connections
from one node the newest wins. Whatever does not decode closes its connection and nothing else.

Bounds: a frame is checked against `FRAME_BYTES_MAX` before it is allocated; a connection whose send
buffer passes `SEND_BUFFER_BYTES_MAX` is broken off (Raft's per-follower window keeps far below it);
strangers are limited in number and have `HELLO_TIMEOUT_S` to introduce themselves.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Mapping
from typing import Protocol, cast

from .config import Address
from .messages import (
    FRAME_BYTES_MAX,
    FRAME_HEAD,
    PROTOCOL,
    BadFrame,
    Hello,
    Message,
    decode_message,
    encode_frame,
)

logger = logging.getLogger(__name__)

SEND_BUFFER_BYTES_MAX = 96 << 20
DIAL_TIMEOUT_S = 1.0
REDIAL_S = (0.05, 0.25)
HELLO_TIMEOUT_S = 5.0
STRANGERS_MAX = 32
SILENT_LINK_MS = 5_000
"""A link whose data stays unacknowledged this long is dead (TCP_USER_TIMEOUT)."""


class Inbox(Protocol):
    """Who hears of messages and connections."""

    def receive(self, peer: str, message: Message) -> None: ...
    def connected(self, peer: str) -> None: ...
    def disconnected(self, peer: str) -> None: ...
    def still_receiving(self, peer: str) -> None: ...


class Peers:
    """This node's links to all others."""

    def __init__(
        self,
        node_id: str,
        listen: Address,
        peers: Mapping[str, Address],
        http_url: str | None,
    ) -> None:
        self.node_id = node_id
        self.addresses = dict(peers)
        self.http_urls: dict[str, str | None] = {}
        """What the other nodes said of their HTTP servers."""
        self.cluster_id: str | None = None
        self.strangers: set[Inbound] = set()
        self.inbound: dict[str, Inbound] = {}
        self.outbound: dict[str, Outbound] = {}
        self._listen = listen
        self._http_url = http_url
        self._inbox: Inbox | None = None
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def inbox(self) -> Inbox:
        assert self._inbox is not None
        return self._inbox

    async def start(self, inbox: Inbox) -> None:
        """Listen and dial. Raises OSError if the address cannot be bound."""
        self._inbox = inbox
        loop = asyncio.get_running_loop()
        host, port = self._listen
        self._server = await loop.create_server(lambda: Inbound(self), host, port)
        for peer in self.addresses:
            self._dial_soon(peer, 0.0)

    def listen_for(self, inbox: Inbox) -> None:
        """Tell `inbox` instead from now on, beginning with the connections there are."""
        self._inbox = inbox
        for peer in self.outbound:
            inbox.connected(peer)

    async def close(self) -> None:
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        links: list[Inbound | Outbound] = [*self.outbound.values(), *self.inbound.values()]
        for link in [*links, *self.strangers]:
            link.transport.abort()

    def hello(self) -> Hello:
        return Hello(PROTOCOL, self.node_id, self.cluster_id, self._http_url)

    def emit(self, peer: str, message: Message) -> None:
        """Send, or drop if there is no connection: Raft sends again."""
        link = self.outbound.get(peer)
        if link is not None:
            link.send(message)

    def lost(self, link: Outbound) -> None:
        """`link` broke: tell Raft, and dial again."""
        if self.outbound.get(link.peer) is link:
            del self.outbound[link.peer]
            self.inbox.disconnected(link.peer)
        if not self._closed:
            self._dial_soon(link.peer, random.uniform(*REDIAL_S))

    def _dial_soon(self, peer: str, delay_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._dial(peer, delay_s))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, peer: str, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        host, port = self.addresses[peer]
        while True:
            await asyncio.sleep(delay_s)
            try:
                async with asyncio.timeout(DIAL_TIMEOUT_S):
                    await loop.create_connection(lambda: Outbound(self, peer), host, port)
            except OSError:
                delay_s = random.uniform(*REDIAL_S)
            else:
                return

    def introduced(self, link: Inbound, hello: Hello) -> None:
        """A stranger said who it is; BadFrame if it has no business here."""
        if hello.protocol != PROTOCOL:
            raise BadFrame(f"protocol {hello.protocol}, here it is {PROTOCOL}")
        if hello.node not in self.addresses:
            raise BadFrame(f"{hello.node} is not a member of this cluster")
        if self.cluster_id and hello.cluster_id and hello.cluster_id != self.cluster_id:
            raise BadFrame(f"{hello.node} belongs to cluster {hello.cluster_id}")
        self.strangers.discard(link)
        old = self.inbound.get(hello.node)
        self.inbound[hello.node] = link
        self.http_urls[hello.node] = hello.http_url
        if old is not None:
            old.transport.abort()


class Inbound(asyncio.Protocol):
    """A connection another node dialled: it only listens."""

    def __init__(self, peers: Peers) -> None:
        self.transport: asyncio.Transport
        self._peers = peers
        self._peer: str | None = None
        self._buffer = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if len(self._peers.strangers) >= STRANGERS_MAX:
            self.transport.abort()
            return
        self._peers.strangers.add(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HELLO_TIMEOUT_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.strangers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._peer is not None and self._peers.inbound.get(self._peer) is self:
            del self._peers.inbound[self._peer]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            consumed = self._take_frames()
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

    def _take_frames(self) -> int:
        """Hand every complete frame on; returns how many bytes they took."""
        position = 0
        while len(self._buffer) - position >= FRAME_HEAD.size:
            size, digest = FRAME_HEAD.unpack_from(self._buffer, position)
            if size > FRAME_BYTES_MAX:
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
            self._peer = message.node
            if self._deadline is not None:
                self._deadline.cancel()
        elif peers.inbound.get(self._peer) is self:
            peers.inbox.receive(self._peer, message)


class Outbound(asyncio.Protocol):
    """A connection this node dialled: it only speaks."""

    def __init__(self, peers: Peers, peer: str) -> None:
        self.peer = peer
        self.transport: asyncio.Transport
        self._peers = peers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        raw = self.transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_LINK_MS)
        self.send(self._peers.hello())
        self._peers.outbound[self.peer] = self
        self._peers.inbox.connected(self.peer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.lost(self)

    def send(self, message: Message) -> None:
        head, body = encode_frame(message)
        if self.transport.get_write_buffer_size() + len(body) > SEND_BUFFER_BYTES_MAX:
            self.transport.abort()
        else:
            self.transport.writelines((head, body))
