"""Bytes that arrive at the Raft port, in pieces of any size: `replication.peers`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import msgspec

from cute_logger.replication.links import Inbound, Outbound
from cute_logger.replication.members import Config, Member, Members
from cute_logger.replication.messages import (
    FRAME_BYTES_MAX,
    FRAME_HEAD,
    PROTOCOL,
    Hello,
    Message,
    Refusal,
    encode_frame,
)
from cute_logger.replication.peers import Peers
from fuzz.choices import Choices, edited, packed, type_of

_MESSAGE = type_of(Message)
_STRANGER_BYTES_MAX = 4096
_HELLO = Hello(PROTOCOL, "b", None, None, "beef", ("127.0.0.1", 1), 3, "a")
_loop = asyncio.new_event_loop()


def target(data: bytes) -> None:
    choices = Choices(data)
    hears = choices.below(4) < 3
    stream = _stream(choices, Refusal("no", is_stranger=True) if not hears else _HELLO)
    pieces = _pieces(stream, choices)
    heard = _loop.run_until_complete(_hear(pieces) if hears else _answered(pieces))
    again = _loop.run_until_complete(_hear([stream]) if hears else _answered([stream]))
    assert heard == again, "where the network cuts a message makes a difference"


def _stream(choices: Choices, first: Message) -> bytes:
    """Frames, most of them in order."""
    frames = [b"".join(encode_frame(first))] if choices.below(8) < 7 else []
    if frames and choices.below(4) == 3:
        given = msgspec.to_builtins(first)
        given[1 + choices.below(len(given) - 1)] = choices.value(_MESSAGE)
        frames = [_framed(msgspec.msgpack.encode(given))]
    while choices.left and len(frames) < 8:
        match choices.below(4):
            case 0:
                frames.append(choices.binary(80))
            case 1:
                head = FRAME_HEAD.pack(choices.number() & 0xFFFFFFFF, choices.below(1 << 64))
                frames.append(head + choices.binary())
            case _:
                frames.append(_framed(packed(choices, _MESSAGE)))
    stream = b"".join(frames)
    return edited(stream, choices) if choices.below(8) == 7 else stream


def _framed(body: bytes) -> bytes:
    head, _ = encode_frame(cast("Message", msgspec.Raw(body)))
    return head + body


def _pieces(stream: bytes, choices: Choices) -> list[bytes]:
    size = 1 + choices.below(1 << 10)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


class _Transport:
    """The other end of a connection, which reads everything at once."""

    def __init__(self) -> None:
        self.is_open = True
        self.sent = b""

    def abort(self) -> None:
        self.is_open = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0


class _Inbox:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def introduced(self, peer: str, incarnation: str) -> None:
        self.heard.append((peer, incarnation))

    def receive(self, peer: str, message: Message) -> None:
        self.heard.append((peer, message))

    def connected(self, peer: str) -> None:
        self.heard.append(peer)

    def disconnected(self, peer: str) -> None:
        pass

    def still_receiving(self, peer: str) -> None:
        pass


class _Peers(Peers):
    """Dials nobody."""

    def _start(self, dial: Coroutine[Any, Any, None]) -> None:
        dial.close()


def _peers() -> tuple[_Peers, _Inbox]:
    peers, inbox = _Peers("a", ("127.0.0.1", 1), ("127.0.0.1", 1), None), _Inbox()
    nodes = (Member(name, "127.0.0.1", 1) for name in "ab")
    peers.follow(Members("a", "cafe", Config.of(nodes)))
    peers.listen_for(inbox)
    return peers, inbox


async def _hear(pieces: list[bytes]) -> Any:
    """Return what a node makes of what another one sends."""
    peers, inbox = _peers()
    link, transport = Inbound(peers), _Transport()
    link.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        if not transport.is_open:
            break
        link.data_received(piece)
        kept_max = FRAME_BYTES_MAX if link in peers.inbound.values() else _STRANGER_BYTES_MAX
        if transport.is_open and len(link._buffer) >= FRAME_HEAD.size:
            assert FRAME_HEAD.unpack_from(link._buffer)[0] <= kept_max
    told = {name: peers.hello(name) for name in peers.addresses}
    result = inbox.heard, transport.is_open, transport.sent, told
    link.connection_lost(None)
    return result


async def _answered(pieces: list[bytes]) -> Any:
    """Return what a node makes of the answer to its own hello."""
    peers, inbox = _peers()
    link, transport = Outbound(peers, "b"), _Transport()
    link.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        if transport.is_open:
            link.data_received(piece)
    result = inbox.heard, transport.is_open, link.was_refused
    link.connection_lost(None)
    return result
