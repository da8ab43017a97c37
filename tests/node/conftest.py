"""A real single node in this process: replica on a real folder, HTTP server on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from cute_logger.node.config import NodeConfig
from cute_logger.node.http.context import Context
from cute_logger.node.http.server import HttpServer
from cute_logger.node.node import replica_config
from cute_logger.replication.replica import Replica
from support.ports import free_ports

DEADLINE_S = 10.0


class Node:
    """A running node and a client of it."""

    def __init__(self, config: NodeConfig, http: aiohttp.ClientSession) -> None:
        self.config = config
        self.context = Context(config)
        self.http = http
        self.server: HttpServer
        self.replica: Replica

    async def start(self) -> None:
        self.server = await HttpServer.start(self.context)

    async def recover(self) -> None:
        self.replica = await Replica.start(replica_config(self.config))
        self.context.replica = self.replica

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    async def lead(self) -> None:
        await until(lambda: self.replica.is_leader and self.replica.ready)

    async def restart(self) -> None:
        """Stop the replica and start it again on the same folder."""
        await self.replica.stop()
        self.context.replica = None
        await self.recover()
        await self.lead()

    async def stop(self) -> None:
        if self.context.replica is not None:
            await self.replica.stop()
        await self.server.close()

    async def call(self, method: str, path: str, *, status: int, **options: Any) -> dict[str, Any]:
        """Send a request, check the status, return the answer's JSON."""
        async with self.http.request(method, self.url(path), **options) as response:
            text = await response.text()
            assert response.status == status, text
            check_headers(response)
            return await response.json(content_type=None) if text else {}

    def url(self, path: str) -> URL:
        """Return the address of `path` as it is written: no dots resolved, no escapes undone."""
        return URL(self.config.http_url + path, encoded=True)

    async def refused(self, method: str, path: str, code: str, **options: Any) -> dict[str, Any]:
        """Send a request that fails with `code`; check and return the problem."""
        async with self.http.request(method, self.url(path), **options) as response:
            problem = await response.json(content_type=None)
            assert problem["code"] == code, problem
            check_headers(response)
            check_problem(response, problem)
            return problem

    async def create(self, stream: str, **config: Any) -> None:
        await self.call("PUT", f"/v1/streams/{stream}", status=201, json={"config": config})

    async def append(self, stream: str, *values: str | None, **options: Any) -> dict[str, Any]:
        records = [{"value": value} for value in values]
        return await self.call(
            "POST",
            f"/v1/streams/{stream}/records",
            status=200,
            json={"records": records},
            **options,
        )

    async def read(self, stream: str, **query: Any) -> dict[str, Any]:
        return await self.call("GET", f"/v1/streams/{stream}/records", status=200, params=query)


def check_headers(response: aiohttp.ClientResponse) -> None:
    assert response.headers["Cute-Node"]
    assert "Cute-Leader" in response.headers
    assert int(response.headers["Cute-Term"]) >= 0
    assert int(response.headers["Cute-Index"]) >= 0
    assert response.headers["Cute-Request-Id"]


def check_problem(response: aiohttp.ClientResponse, problem: dict[str, Any]) -> None:
    assert response.content_type == "application/problem+json"
    assert problem["status"] == response.status
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"].endswith(problem["code"])
    assert problem["request_id"] == response.headers["Cute-Request-Id"]
    assert problem["side_effect"] == ("maybe" if response.status == 504 else "none")
    assert problem["retryable"] is (response.status in (429, 503, 504, 507))
    assert ("Retry-After" in response.headers) is (response.status in (429, 503))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def node_config(folder: Path, **changes: Any) -> NodeConfig:
    http, raft = free_ports(2)
    config = NodeConfig(
        id="n1",
        data=str(folder / "n1"),
        cluster={"n1": ("127.0.0.1", raft)},
        raft=("127.0.0.1", raft),
        http=("127.0.0.1", http),
        append_period=20,
        election_timeout_min=100,
        election_timeout_max=200,
    )
    return replace(config, **changes)


@asynccontextmanager
async def serving(config: NodeConfig) -> AsyncIterator[Node]:
    """A node that listens for clients and has not begun to recover."""
    async with aiohttp.ClientSession() as http:
        node = Node(config, http)
        await node.start()
        try:
            yield node
        finally:
            await node.stop()


@asynccontextmanager
async def leading(config: NodeConfig) -> AsyncIterator[Node]:
    async with serving(config) as node:
        await node.recover()
        await node.lead()
        yield node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """The only node of its cluster, leading."""
    async with leading(node_config(tmp_path)) as node:
        yield node


@pytest.fixture
async def start_node(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    """Start such a node with other settings than usual."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Node:
            config = node_config(tmp_path, **changes)
            return await stack.enter_async_context(leading(config))

        yield start


@pytest.fixture
async def bare_node(tmp_path: Path) -> AsyncIterator[Node]:
    """One of three nodes, before recovery; the others never come."""
    config = node_config(tmp_path)
    others = {f"n{i}": ("127.0.0.1", port) for i, port in enumerate(free_ports(2), 2)}
    async with serving(replace(config, cluster={**config.cluster, **others})) as node:
        yield node


@pytest.fixture
def joining() -> Callable[..., AbstractAsyncContextManager[Node]]:
    """Run one more node of a cluster, which waits to be added."""

    @asynccontextmanager
    async def join(member: NodeConfig, name: str, folder: Path) -> AsyncIterator[Node]:
        config = node_config(folder)
        config = replace(
            config,
            id=name,
            data=str(folder / name),
            cluster={**member.cluster, name: config.raft},
            join=True,
        )
        async with serving(config) as node:
            await node.recover()
            yield node

    return join


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Three nodes that know their leader and each other's HTTP address; the leader comes first."""
    ports = free_ports(6)
    members = {f"n{i}": ("127.0.0.1", port) for i, port in enumerate(ports[:3], 1)}
    async with AsyncExitStack() as stack:
        nodes = []
        for (name, raft), http in zip(members.items(), ports[3:], strict=True):
            config = node_config(
                tmp_path,
                id=name,
                data=str(tmp_path / name),
                cluster=members,
                raft=raft,
                http=("127.0.0.1", http),
            )
            nodes.append(await stack.enter_async_context(serving(config)))
        for node in nodes:
            await node.recover()
        await until(lambda: all(n.replica.ready and n.replica.leader_http for n in nodes))
        yield sorted(nodes, key=lambda node: not node.replica.is_leader)
