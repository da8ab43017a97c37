"""Connections between nodes: real sockets, no Raft."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from cute_logger.replication import peers as peers_module
from cute_logger.replication.members import Config, Member, Members
from cute_logger.replication.messages import Message
from cute_logger.replication.peers import Peers
from support.ports import free_ports
from support.replicas import until

NEVER_S = (3600.0, 3600.0)


class Connected:
    """An `Inbox` that knows to whom there are connections now."""

    def __init__(self) -> None:
        self.peers: set[str] = set()
        self.losses = 0

    def introduced(self, peer: str, incarnation: str) -> None: ...
    def receive(self, peer: str, message: Message) -> None: ...
    def still_receiving(self, peer: str) -> None: ...
    def connected(self, peer: str) -> None:
        self.peers.add(peer)

    def disconnected(self, peer: str) -> None:
        self.peers.discard(peer)
        self.losses += 1


Start = Callable[[str], Coroutine[Any, Any, Connected]]


@pytest.fixture
def places() -> dict[str, tuple[str, int]]:
    return {name: ("127.0.0.1", port) for name, port in zip("ab", free_ports(2), strict=True)}


@pytest.fixture
async def start(places: dict[str, tuple[str, int]]) -> AsyncIterator[Start]:
    founders = Config.of(Member(name, *place) for name, place in places.items())
    started: list[Peers] = []

    async def start_one(name: str) -> Connected:
        node = Peers(name, places[name], places[name], None)
        node.follow(Members(name, f"disk of {name}", founders))
        started.append(node)
        inbox = Connected()
        await node.start(inbox)
        return inbox

    yield start_one
    for node in started:
        await node.close()


async def test_a_node_that_is_dialled_dials_back_at_once(
    start: Start, places: dict[str, tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "REDIAL_S", NEVER_S)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    ends_soon = await asyncio.start_server(hang_up, *places["b"])
    early = await start("a")
    await until(lambda: early.losses, "the connection breaks")
    ends_soon.close()
    await ends_soon.wait_closed()

    late = await start("b")
    await until(lambda: early.peers == {"b"} and late.peers == {"a"}, "both are connected")


async def test_nodes_that_start_together_keep_one_connection_each_way(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "REDIAL_S", NEVER_S)
    first, second = await asyncio.gather(start("a"), start("b"))
    await until(lambda: first.peers == {"b"} and second.peers == {"a"}, "both are connected")
