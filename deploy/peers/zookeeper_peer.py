"""ZooKeeper: every record a sequential node, several in one transaction (`multi`)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from systems import ADMIN

from cute_logger.node.cli.bench.case import Case
from cute_logger.node.cli.bench.target import Sender

from .common import ThreeNodes, batches, values_in, worker_of

logging.getLogger("kazoo").setLevel(logging.CRITICAL)

JAR = "/usr/share/java/zookeeper.jar"
BATCH_VALUES_MAX = 500
READS_IN_FLIGHT = 500
POLL_S = 0.05
SESSION_S = 4.0

CONFIG = """
tickTime=500
initLimit=20
syncLimit=10
dataDir={folder}
clientPort={port}
clientPortAddress=127.0.0.1
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
{servers}
"""


def why_not() -> str | None:
    if not os.path.exists(JAR):
        return "ZooKeeper is not there: apt-get install zookeeper"
    return None if shutil.which("java") else "java is not there: apt-get install default-jre"


class System(ThreeNodes):
    name = "ZooKeeper"
    version = "3.8"
    durability = "fsync on a majority"
    worker: Sequence[str] = worker_of("zookeeper")
    ports_count = 9

    def _start_node(self, i: int) -> None:
        data = self._folder / f"n{i}"
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(f"{i + 1}\n")
        servers = "\n".join(
            f"server.{j + 1}=127.0.0.1:{self._ports[3 + j]}:{self._ports[6 + j]}" for j in range(3)
        )
        config = CONFIG.format(folder=data, port=self._ports[i], servers=servers)
        (self._folder / f"n{i}.cfg").write_text(config)
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        command = ["java", "-cp", JAR, "-Xmx2g", main, str(self._folder / f"n{i}.cfg")]
        self._processes.start(f"n{i}", command, self._folder / f"n{i}.log")

    def target(self) -> Target:
        return Target(self.servers, ADMIN)

    async def kill_leader(self) -> None:
        for i, port in enumerate(self._ports[:3]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"srvr")
            told = await reader.read()
            writer.close()
            if b"Mode: leader" in told:
                await self._kill(i)
                return
        raise RuntimeError("no ZooKeeper node leads")


class Target:
    """kazoo works with threads; its answers come back to the event loop one by one."""

    def __init__(self, servers: Sequence[str], case: Case) -> None:
        self._case = case
        self._servers = servers
        self._client: KazooClient | None = None
        self._opening = asyncio.Lock()

    def values_per_send(self, value_bytes: int) -> int:
        return values_in(self._case.batch_bytes, value_bytes, BATCH_VALUES_MAX)

    async def _opened(self) -> KazooClient:
        async with self._opening:
            if self._client is None:
                client = KazooClient(
                    ",".join(self._servers),
                    timeout=SESSION_S,
                    handler=SequentialThreadingHandler(),
                    connection_retry={"max_tries": -1, "delay": 0.05, "max_delay": 0.2},
                )
                await asyncio.to_thread(client.start, 15)
                self._client = client
            return self._client

    async def create(self, stream: str) -> None:
        client = await self._opened()
        if not await _answer(client.exists_async(f"/{stream}")):
            await _answer(client.create_async(f"/{stream}"))

    async def remove(self, stream: str) -> None:
        """Left: deleting one by one takes longer than the case did."""

    async def append(self, stream: str, value: bytes) -> None:
        client = await self._opened()
        await _answer(client.create_async(f"/{stream}/r-", value, sequence=True))

    async def append_many(self, stream: str, values: Sequence[bytes]) -> None:
        transaction = (await self._opened()).transaction()
        for value in values:
            transaction.create(f"/{stream}/r-", value, sequence=True)
        for result in await _answer(transaction.commit_async()):
            if isinstance(result, Exception):
                raise result

    def sender(self, stream: str) -> AbstractAsyncContextManager[Sender]:
        return batches(self, stream, self._case.in_flight)

    async def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        """There is no reading of ranges: names first, then node by node, many under way."""
        client = await self._opened()
        names = sorted(await _answer(client.get_children_async(f"/{stream}")))[:count]
        async for values in self._values(stream, names):
            yield values

    async def _values(
        self, stream: str, names: Sequence[str]
    ) -> AsyncGenerator[Sequence[bytes], None]:
        client = await self._opened()
        for at in range(0, len(names), READS_IN_FLIGHT):
            some = names[at : at + READS_IN_FLIGHT]
            asked = [_answer(client.get_async(f"/{stream}/{name}")) for name in some]
            yield [value for value, _ in await asyncio.gather(*asked)]

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        client = await self._opened()
        seen: set[str] = set()
        while True:
            names = set(await _answer(client.get_children_async(f"/{stream}"))) - seen
            async for values in self._values(stream, sorted(names)):
                yield values
            seen |= names
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        if self._client is not None:
            await asyncio.to_thread(self._client.stop)
            await asyncio.to_thread(self._client.close)


async def _answer(result: Any) -> Any:
    """Wait for kazoo's answer on the event loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle() -> None:
        if future.done():
            return
        if result.exception is not None:
            future.set_exception(result.exception)
        else:
            future.set_result(result.value)

    result.rawlink(lambda _: loop.call_soon_threadsafe(settle))
    return await future
