"""A cluster of real replicas in one process: real sockets, real files."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cute_logger.replication.config import Limits, ReplicaConfig, Timing
from cute_logger.replication.errors import NoLeader, NotLeader, OutcomeUnknown
from cute_logger.replication.replica import Replica
from cute_logger.replication.types import Append, Receipt
from cute_logger.storage.record import Record, encode_records

from .ports import free_ports

FAST = Timing(0.05, 0.3, 0.6, 0.6)


async def until(condition: Callable[[], Any], what: str, deadline_s: float = 10.0) -> Any:
    """The first true value of `condition`, or a failure that says what did not happen."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (value := condition()):
                await asyncio.sleep(0.005)
            return value
    except TimeoutError:
        pytest.fail(f"not within {deadline_s} s: {what}")


def append_of(*values: bytes, stream: str = "s", **fields: Any) -> Append:
    body = encode_records([Record(value) for value in values])
    return Append(stream, body, len(values), max(map(len, values)), **fields)


class Cluster:
    def __init__(self, folder: Path, count: int, limits: Limits) -> None:
        ports = free_ports(count)
        self.addresses = {f"n{i}": ("127.0.0.1", port) for i, port in enumerate(ports, 1)}
        self.running: dict[str, Replica] = {}
        self.founders = list(self.addresses)
        """Whom the settings name; the others join."""
        self._keys = itertools.count()
        self._folder = folder
        self._limits = limits

    def folder_of(self, name: str) -> Path:
        return self._folder / name

    async def start_new(self, name: str) -> None:
        """Start one more node, which waits to be added."""
        self.addresses[name] = ("127.0.0.1", free_ports(1)[0])
        await self.start(name)

    async def start(self, *names: str, joins: bool = False) -> None:
        for name in names or self.addresses:
            known = {*self.founders, name}
            config = ReplicaConfig(
                id=name,
                data=str(self.folder_of(name)),
                raft_address=self.addresses[name],
                peers={peer: self.addresses[peer] for peer in known if peer != name},
                joins=joins or name not in self.founders,
                http_url=f"http://{name}",
                timing=FAST,
                limits=self._limits,
            )
            self.running[name] = await Replica.start(config)

    async def stop(self, *names: str) -> None:
        for name in names or list(self.running):
            await self.running.pop(name).stop()

    async def crash(self, name: str) -> None:
        """Leave the files as they are, as after kill -9: without a checkpoint or a word."""
        node = self.running.pop(name)
        node._engine.stop()
        await node._peers.close()
        await node._close()

    async def leader(self) -> Replica:
        """A leader that every running member follows and that has caught up."""

        def agreed() -> Replica | None:
            members = [node for node in self.running.values() if node.is_member]
            leaders = {node.leader_id for node in members}
            leader = self.running.get(leaders.pop() or "") if len(leaders) == 1 else None
            ready = all(node.ready for node in members)
            return leader if leader is not None and leader.is_leader and ready else None

        leader: Replica = await until(agreed, "a leader")
        return leader

    async def append(self, *values: bytes, **fields: Any) -> Receipt:
        """As a client does it: again, under the same key, if leadership is lost meanwhile."""
        fields.setdefault("idempotency_key", f"append {next(self._keys)}")
        while True:
            leader = await self.leader()
            with contextlib.suppress(OutcomeUnknown, NotLeader, NoLeader):
                return await leader.append(append_of(*values, **fields), timeout_s=10)

    async def values(self, name: str, stream: str = "s") -> list[bytes | None]:
        """All values of the stream as `name` serves them, after everything acknowledged so far."""
        node = self.running[name]
        await until(lambda: node.ready, f"{name} to be ready")
        await node.read_barrier(timeout_s=10)
        found: list[bytes | None] = []
        offset = 0
        while batches := (await node.read(stream, offset, bytes_max=1 << 20)).batches:
            found += [record.value for batch in batches for record in batch.records()]
            offset = batches[-1].next_offset
        return found


MakeCluster = Callable[..., Awaitable[Cluster]]
