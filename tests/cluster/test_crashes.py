"""Real processes, killed and frozen under load: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator

import pytest

from cute_logger.client import AsyncClient
from support.history import History, served_by
from support.processes import ProcessCluster

pytestmark = pytest.mark.timeout(180)


@contextlib.asynccontextmanager
async def load_on(cluster: ProcessCluster) -> AsyncIterator[History]:
    """Writers on all nodes; on leaving, checks what every node serves against what they saw."""
    async with AsyncClient(cluster.urls) as client:
        await client.create_stream("load")
    history = History(cluster.urls, "load")
    writing = asyncio.create_task(history.run(writers=8, timeout_s=20))
    try:
        await history.wait_acknowledged(100)
        yield history
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    await cluster.leader()
    history.check(await served_alike(cluster))


async def served_alike(cluster: ProcessCluster) -> list[bytes | None]:
    """Return what all nodes serve: what a writer gave up may still be appended meanwhile."""
    async with asyncio.timeout(20):
        while True:
            served = [await served_by(url, "load") for url in cluster.urls]
            if served[0] == served[1] == served[2]:
                return served[0]


async def test_killing_the_leader_under_load(cluster: ProcessCluster) -> None:
    await cluster.leader()
    async with load_on(cluster) as history:
        for _ in range(3):
            leader = await cluster.leader()
            cluster.kill(leader)
            await history.wait_acknowledged(len(history.acknowledged) + 100)
            cluster.start(leader)
    assert history.longest_gap_s() < 10


async def test_killing_all_at_once_under_load(cluster: ProcessCluster) -> None:
    await cluster.leader()
    async with load_on(cluster) as history:
        cluster.kill()
        cluster.start()
        restarted = time.monotonic()
        await history.wait_acknowledged(len(history.acknowledged) + 100)
    first = min(at for at in history.acknowledged_at if at > restarted)
    assert first - restarted < 15


async def test_a_frozen_leader_is_replaced_and_comes_back_as_a_follower(
    cluster: ProcessCluster,
) -> None:
    frozen = await cluster.leader()
    async with load_on(cluster) as history:
        cluster.signal(signal.SIGSTOP, frozen)
        before = len(history.acknowledged)
        await history.wait_acknowledged(before + 100)
        cluster.signal(signal.SIGCONT, frozen)
        await cluster.leader()
    assert history.longest_gap_s() < 15


async def test_sigterm_hands_leadership_over_and_exits_cleanly(cluster: ProcessCluster) -> None:
    leader = await cluster.leader()
    async with load_on(cluster) as history:
        cluster.signal(signal.SIGTERM, leader)
        assert await asyncio.to_thread(cluster.processes[leader].wait, 15) == 0
        await history.wait_acknowledged(len(history.acknowledged) + 100)
        cluster.start(leader)
    assert "lost leadership" in cluster.log_of(leader)
