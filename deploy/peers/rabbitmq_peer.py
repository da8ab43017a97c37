"""RabbitMQ: a quorum queue with three replicas, publisher confirms."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from systems import ADMIN

from cute_logger.node.cli.bench.case import Case
from cute_logger.node.cli.bench.target import Sender

from .common import ThreeNodes, batches, values_in, worker_of

logging.getLogger("pika").setLevel(logging.CRITICAL)

BIN = "/usr/lib/rabbitmq/bin"
BATCH_VALUES_MAX = 200
"""There are no batches: as many messages are given to the client at a time."""
PREFETCH = 2000
QUORUM = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3}

CONFIG = """
listeners.tcp.1 = 127.0.0.1:{port}
cluster_formation.peer_discovery_backend = classic_config
{nodes}
disk_free_limit.absolute = 50MB
log.file.level = warning
"""


def why_not() -> str | None:
    if not os.path.exists(f"{BIN}/rabbitmq-server") or not shutil.which("epmd"):
        return "RabbitMQ is not there: apt-get install rabbitmq-server"
    return None


class System(ThreeNodes):
    name = "RabbitMQ quorum queue"
    version = "3.10"
    durability = "fsync on a majority"
    worker: Sequence[str] = worker_of("rabbitmq")
    ports_count = 7

    def _prepare(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text("bench")
        cookie.chmod(0o400)
        (self._folder / "plugins").write_text("[].\n")
        self._processes.start("epmd", ["epmd"], self._folder / "epmd.log", self._variables())

    def _node(self, i: int) -> str:
        return f"bench{self._ports[i]}@localhost"

    def _variables(self) -> dict[str, str]:
        """An Erlang port mapper of their own, so that other nodes of the machine are not met."""
        return {"HOME": str(self._folder), "ERL_EPMD_PORT": str(self._ports[6])}

    def _start_node(self, i: int) -> None:
        nodes = "\n".join(
            f"cluster_formation.classic_config.nodes.{j + 1} = {self._node(j)}" for j in range(3)
        )
        config = self._folder / f"n{i}.conf"
        config.write_text(CONFIG.format(port=self._ports[i], nodes=nodes))
        variables = {
            **self._variables(),
            "RABBITMQ_NODENAME": self._node(i),
            "RABBITMQ_DIST_PORT": str(self._ports[3 + i]),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / f"n{i}"),
            "RABBITMQ_LOG_BASE": str(self._folder / f"n{i}-log"),
            "RABBITMQ_PID_FILE": str(self._folder / f"n{i}.pid"),
        }
        command = [f"{BIN}/rabbitmq-server"]
        self._processes.start(f"n{i}", command, self._folder / f"n{i}.log", variables)

    def target(self) -> Target:
        return Target(self.servers, ADMIN)

    async def _control(self, i: int, *words: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [f"{BIN}/rabbitmqctl", "--node", self._node(i), *words],
            env={**os.environ, **self._variables()},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    async def kill_leader(self) -> None:
        told = await self._control(0, "--quiet", "list_queues", "name", "leader")
        leader = next(line.split("\t")[1] for line in told.splitlines() if "failover" in line)
        await self._kill([self._node(i) for i in range(3)].index(leader.strip()))

    async def heal(self) -> None:
        if self._killed is not None:
            self._start_node(self._killed)
            await asyncio.sleep(1)
            await self._control(self._killed, "await_startup")
            self._killed = None
        await super().heal()


class Target:
    """pika on asyncio; a connection that is lost is made again to the next node."""

    def __init__(self, servers: Sequence[str], case: Case) -> None:
        self._case = case
        self._servers = [*servers]
        self._next = 0
        self._connection: AsyncioConnection | None = None
        self._channel: Any = None
        self._opening = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._tag = 0

    def values_per_send(self, value_bytes: int) -> int:
        return values_in(self._case.batch_bytes, value_bytes, BATCH_VALUES_MAX)

    async def _opened(self) -> Any:
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                self._channel = await asyncio.wait_for(self._open(), 10)
            return self._channel

    async def _open(self) -> Any:
        loop = asyncio.get_running_loop()
        host, _, port = self._servers[self._next % len(self._servers)].partition(":")
        self._next += 1
        opened: asyncio.Future[Any] = loop.create_future()

        def fail(_: object, error: object) -> None:
            self._lost(error)
            if not opened.done():
                opened.set_exception(ConnectionError(str(error)))

        def made(channel: Any) -> None:
            channel.add_on_close_callback(fail)
            channel.confirm_delivery(self._confirmed)
            opened.set_result(channel)

        self._tag = 0
        self._connection = AsyncioConnection(
            pika.ConnectionParameters(host, int(port), heartbeat=0),
            on_open_callback=lambda connection: connection.channel(on_open_callback=made),
            on_open_error_callback=fail,
            on_close_callback=fail,
            custom_ioloop=loop,
        )
        return await opened

    def _lost(self, error: object) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(str(error)))

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        first = min(self._waiting, default=0) if method.multiple else method.delivery_tag
        for tag in range(first, method.delivery_tag + 1):
            future = self._waiting.pop(tag, None)
            if future is None or future.done():
                continue
            if isinstance(method, pika.spec.Basic.Ack):
                future.set_result(None)
            else:
                future.set_exception(ConnectionError("the broker did not accept it"))

    async def create(self, stream: str) -> None:
        await self._declared(stream, "queue_declare", durable=True, arguments=QUORUM)

    async def remove(self, stream: str) -> None:
        await self._declared(stream, "queue_delete")

    async def _declared(self, stream: str, method: str, **arguments: Any) -> None:
        channel = await self._opened()
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def fail(_: object, error: object) -> None:
            if not done.done():
                done.set_exception(ConnectionError(str(error)))

        channel.add_on_close_callback(fail)
        getattr(channel, method)(stream, callback=done.set_result, **arguments)
        await done

    def _publish(self, channel: Any, stream: str, value: bytes) -> asyncio.Future[None]:
        channel.basic_publish("", stream, value, pika.BasicProperties(delivery_mode=2))
        self._tag += 1
        self._waiting[self._tag] = asyncio.get_running_loop().create_future()
        return self._waiting[self._tag]

    async def append(self, stream: str, value: bytes) -> None:
        await self._publish(await self._opened(), stream, value)

    async def append_many(self, stream: str, values: Sequence[bytes]) -> None:
        channel = await self._opened()
        await asyncio.gather(*[self._publish(channel, stream, value) for value in values])

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
        """A queue gives each message away once; what was taken is acknowledged by the page."""
        channel = await self._opened()
        arrived: list[bytes] = []
        newest = 0
        is_new = asyncio.Event()

        def take(_: object, method: Any, __: object, body: bytes) -> None:
            nonlocal newest
            arrived.append(body)
            newest = method.delivery_tag
            is_new.set()

        channel.basic_qos(prefetch_count=PREFETCH)
        consumer = channel.basic_consume(stream, take)
        try:
            while True:
                await is_new.wait()
                is_new.clear()
                values, arrived[:] = [*arrived], []
                channel.basic_ack(newest, multiple=True)
                yield values
        finally:
            with suppress(Exception):  # the connection may be gone
                channel.basic_cancel(consumer)

    async def close(self) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            await asyncio.sleep(0.1)
