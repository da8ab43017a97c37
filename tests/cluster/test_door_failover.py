"""Appends under way through the fast door while the leader is killed: each happens once."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cute_logger.client import AsyncClient, OutcomeUnknown, Receipt
from support.processes import ProcessCluster

pytestmark = pytest.mark.timeout(120)


async def through_the_door(url: str, count: int) -> None:
    """Wait until the node at `url` has taken so many appends through its door."""
    wanted = 'cute_http_requests_total{method="APPEND",route="door",status="2xx"} '
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{url}/metrics") as response:
                lines = (await response.text()).splitlines()
            counted = [line[len(wanted) :] for line in lines if line.startswith(wanted)]
            if counted and float(counted[0]) >= count:
                return
            await asyncio.sleep(0.05)


async def test_a_leader_killed_with_appends_under_way_doubles_and_loses_none(
    cluster: ProcessCluster,
) -> None:
    first = await cluster.leader()
    receipts: dict[bytes, Receipt] = {}
    unknown: set[bytes] = set()
    is_over = asyncio.Event()

    async def write(log: AsyncClient, writer: int) -> None:
        number = 0
        while not is_over.is_set():
            value = b"%d-%d" % (writer, number)
            number += 1
            try:
                receipts[value] = await log.produce("s", value, timeout=20)
            except OutcomeUnknown:
                unknown.add(value)

    async with AsyncClient(cluster.urls) as log:
        await log.create_stream("s")
        writing = [asyncio.create_task(write(log, n)) for n in range(16)]
        try:
            await through_the_door(cluster.url(first), 100)
            cluster.kill(first)
            second = await cluster.leader()
            await through_the_door(cluster.url(second), 100)
        finally:
            is_over.set()
            await asyncio.gather(*writing)
        kept = [record.value async for record in log.read_iter("s")]
    assert len(kept) == len(set(kept))
    assert receipts.keys() <= set(kept) <= receipts.keys() | unknown
    assert all(kept[each.first_offset] == value for value, each in receipts.items())
