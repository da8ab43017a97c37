"""What a node does with whom it does not know yet, and with addresses that make no sense."""

from __future__ import annotations

import asyncio
import struct

import pytest

from cute_logger.replication.links import Inbound
from cute_logger.replication.members import Config, Member, Members
from cute_logger.replication.messages import PROTOCOL, Hello, Message, encode_frame
from cute_logger.replication.peers import Peers
from support.replicas import free_ports, until


class Inbox:
    def introduced(self, peer: str, incarnation: str) -> None: ...
    def receive(self, peer: str, message: Message) -> None: ...
    def connected(self, peer: str) -> None: ...
    def disconnected(self, peer: str) -> None: ...
    def still_receiving(self, peer: str) -> None: ...


class Transport(asyncio.Transport):
    is_open = True

    def abort(self) -> None:
        self.is_open = False


def peers_of(*others: Member, node: str = "a", port: int = 1) -> Peers:
    peers = Peers(node, ("127.0.0.1", port), ("127.0.0.1", port), None)
    me = Member(node, "127.0.0.1", port)
    peers.follow(Members(node, f"disk of {node}", Config.of([me, *others])))
    return peers


async def test_a_stranger_may_not_send_much() -> None:
    """A frame's size is only believed to a node: of strangers there may be many at a time."""
    link, transport = Inbound(peers_of(Member("b", "127.0.0.1", 1))), Transport()
    link.connection_made(transport)
    link.data_received(struct.pack("<IQ", 1 << 20, 0))
    assert not transport.is_open
    link.connection_lost(None)


async def test_a_hello_of_the_usual_size_is_no_stranger() -> None:
    peers = peers_of(Member("b", "127.0.0.1", 1))
    peers.listen_for(Inbox())
    link, transport = Inbound(peers), Transport()
    link.connection_made(transport)
    url = f"http://{'long' * 60}.example:8101"
    hello = Hello(PROTOCOL, "b", "c" * 32, url, "beef", ("b" * 60 + ".example", 9101), 7, "a")
    link.data_received(b"".join(encode_frame(hello)))
    assert transport.is_open
    assert peers.inbound == {"b": link}
    link.connection_lost(None)


@pytest.mark.parametrize("host", ["a" * 64, "a\0b", ".."])
async def test_an_address_that_makes_no_sense_is_dialled_again_when_it_changes(host: str) -> None:
    """A member that moved to an impossible address is found once it says a better one."""
    ports = free_ports(2)
    peers = peers_of(Member("b", host, 1), port=ports[0])
    other = peers_of(Member("a", "127.0.0.1", ports[0]), node="b", port=ports[1])
    await peers.start(Inbox())
    await other.start(Inbox())
    try:
        await until(lambda: "b" in peers.outbound, "the member to be found")
    finally:
        await peers.close()
        await other.close()
