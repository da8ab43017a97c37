"""Three nodes of something that keeps a log, on loopback, started and killed by a script."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from processes import free_ports

from cute_logger.client import AsyncClient
from cute_logger.node.cli.bench.case import Case, Kind
from cute_logger.node.cli.bench.runner import WORKER
from cute_logger.node.cli.bench.target import CuteTarget, Target
from cute_logger.node.cli.local_cluster import NodePlace, NodeProcess, leader_of, start_node

ADMIN = Case(Kind.ONE_IN_FLIGHT)
"""The settings of a client that only creates, removes and probes."""
PYTHON = "Python"


class System(Protocol):
    """Used for one cluster: started once, in a folder of its own."""

    name: str
    version: str
    durability: str
    """What an acknowledgement means, in a few words."""
    client: str
    """The language of the load's client."""
    worker: Sequence[str]
    """The command of a load's worker process."""

    @property
    def servers(self) -> list[str]:
        """Addresses for clients."""

    @property
    def pids(self) -> list[int]:
        """All living processes of all nodes."""

    async def start(self, folder: Path) -> None:
        """Start three nodes and return at once, whether or not they are ready."""

    def target(self) -> Target: ...

    async def kill_leader(self) -> None:
        """Kill (-9) the node that leads, and wait until it is gone."""

    async def heal(self) -> None:
        """Start what was killed and wait until all three take part."""

    async def stop(self) -> None: ...


def title_of(system: System) -> str:
    return f"{system.name}, {system.client}"


class CuteSystem:
    name = "Cute Logger"
    version = "of this checkout"
    durability = "fsync on a majority"
    client = PYTHON
    worker: Sequence[str] = WORKER

    def __init__(self, size: int = 3) -> None:
        self.nodes: dict[str, NodeProcess] = {}
        self._size = size
        self._places: list[NodePlace] = []
        self._frozen: list[NodeProcess] = []

    @property
    def servers(self) -> list[str]:
        return [place.http for place in self._places]

    @property
    def pids(self) -> list[int]:
        return [node.process.pid for node in self.nodes.values() if node.is_alive]

    async def start(self, folder: Path) -> None:
        ports = free_ports(2 * self._size)
        self._places = [
            NodePlace(f"n{i + 1}", ports[2 * i], ports[2 * i + 1], str(folder / f"n{i + 1}"))
            for i in range(self._size)
        ]
        for place in self._places:
            await self.start_node(place.id)

    async def start_node(self, node: str) -> None:
        place = next(place for place in self._places if place.id == node)
        self.nodes[node] = await start_node(place, self._places)

    async def leader(self) -> NodeProcess:
        """Wait until all living nodes agree on a leader."""
        return self.nodes[await leader_of([*self.nodes.values()])]

    def target(self) -> Target:
        return CuteTarget(self.servers, ADMIN)

    async def kill(self, node: NodeProcess) -> None:
        node.signal(signal.SIGKILL)
        await node.process.wait()

    async def kill_leader(self) -> None:
        await self.kill(await self.leader())

    async def freeze_leader(self) -> None:
        """Stop (SIGSTOP) the node that leads, as if its machine hung; `heal` lets it go on."""
        leader = await self.leader()
        leader.signal(signal.SIGSTOP)
        self._frozen.append(leader)

    async def transfer_leadership(self) -> None:
        """Have the leader hand over to whoever is best."""
        async with AsyncClient(self.servers) as client:
            await client.transfer_leadership()

    async def kill_all(self) -> None:
        """As if the power failed, but for the disks."""
        for node in self.nodes.values():
            node.signal(signal.SIGKILL)
        await asyncio.gather(*(node.process.wait() for node in self.nodes.values()))

    def _thaw(self) -> None:
        while self._frozen:
            self._frozen.pop().signal(signal.SIGCONT)

    async def heal(self) -> None:
        self._thaw()
        for node in [*self.nodes.values()]:
            if not node.is_alive:
                await self.start_node(node.place.id)
        await self.leader()

    async def stop(self) -> None:
        self._thaw()
        for node in self.nodes.values():
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.process.wait() for node in self.nodes.values()))


@asynccontextmanager
async def cute_cluster(folder: Path, size: int = 3) -> AsyncIterator[CuteSystem]:
    """Nodes that have a leader; stopped at the end."""
    system = CuteSystem(size)
    try:
        await system.start(folder)
        await system.leader()
        yield system
    finally:
        await system.stop()
