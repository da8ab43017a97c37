"""A leader that hangs: appends go on at the next one soon after it is elected, each once."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from cute_logger.client import AsyncClient
from support.processes import ProcessCluster, http

pytestmark = pytest.mark.timeout(120)

SOON_S = 0.8
"""Of which the machine may take the most."""


async def until_another_leads(cluster: ProcessCluster, frozen: str, asked: str) -> float:
    """Return when the node asked was seen to have another leader than the frozen one."""
    async with asyncio.timeout(30):
        while True:
            _, status, _ = await http("GET", f"{cluster.url(asked)}/v1/cluster")
            if status["leader"] not in (None, frozen):
                return time.monotonic()
            await asyncio.sleep(0.01)


async def test_the_client_goes_on_at_the_next_leader(cluster: ProcessCluster) -> None:
    frozen = await cluster.leader()
    other = next(name for name in cluster.http if name != frozen)
    values = [b"%d" % number for number in range(8)]
    async with AsyncClient(cluster.urls) as log:
        await log.create_stream("s")
        await log.cluster()
        await log.produce("s", b"before")
        cluster.signal(signal.SIGSTOP, frozen)
        writing = [asyncio.create_task(log.produce("s", value)) for value in values]
        elected = await until_another_leads(cluster, frozen, other)
        await asyncio.gather(*writing)
        assert time.monotonic() - elected < SOON_S
        cluster.signal(signal.SIGCONT, frozen)
        await cluster.leader()
        kept = [record.value async for record in log.read_iter("s", consistency="linearizable")]
    assert sorted(kept) == sorted([b"before", *values])


async def test_a_follower_does_not_wait_for_it(cluster: ProcessCluster) -> None:
    frozen = await cluster.leader()
    other = next(name for name in cluster.http if name != frozen)
    stream = f"{cluster.url(other)}/v1/streams/s"
    await http("PUT", stream, json={})
    cluster.signal(signal.SIGSTOP, frozen)

    async def append() -> int:
        key, body = {"Idempotency-Key": "k"}, {"records": [{"value": "a"}]}
        return (await http("POST", f"{stream}/records", json=body, headers=key))[0]

    asking = asyncio.create_task(append())
    await until_another_leads(cluster, frozen, other)
    async with asyncio.timeout(SOON_S):
        assert await asking == 504
    assert await append() == 200
    cluster.signal(signal.SIGCONT, frozen)
    await cluster.leader()
    _, page, _ = await http("GET", f"{stream}/records?consistency=linearizable")
    assert page["high_watermark"] == 1
