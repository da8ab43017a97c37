"""Let one node miss a lot and measure how it catches up, and what the others notice of it.

    python deploy/catchup.py [--mib 2048] [--record-bytes 10000] [--rate 200]

Three nodes on loopback. One is killed, the data is produced, then the node is started again while
appends of 1 KB go on at a fixed rate. Prints how fast it catches up, the appends' latency (from the
time each was due) before and meanwhile, and the leader's resident memory before and at most.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp
from processes import MIB, rss_mib
from systems import cute_cluster

from cute_logger.client import AsyncClient
from cute_logger.node.cli.local_cluster import NodeProcess

QUIET_S = 15.0


async def send(client: AsyncClient, mib: int, record_bytes: int) -> None:
    async with client.producer("much") as producer:
        for _ in range(mib * MIB // record_bytes):
            await producer.send(os.urandom(record_bytes))


class Probe:
    """Appends at a fixed rate, each timed from when it was due."""

    def __init__(self, client: AsyncClient, rate: float) -> None:
        self._client = client
        self._rate = rate
        self._latencies_ms: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None]

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        value = os.urandom(1000)
        due = time.monotonic()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self._append(value, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _append(self, value: bytes, due: float) -> None:
        await self._client.produce("probe", [value])
        self._latencies_ms.append((time.monotonic() - due) * 1000)

    def take(self) -> tuple[float, float, float]:
        """p50, p99 and the largest since the last call, in ms."""
        taken, self._latencies_ms = self._latencies_ms, []
        cuts = statistics.quantiles(taken, n=100)
        return cuts[49], cuts[98], max(taken)


async def until_ready(node: NodeProcess) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{node.place.http}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.02)


async def highest_rss(node: NodeProcess, seen: list[float]) -> None:
    while True:
        seen.append(rss_mib(node.process.pid))
        await asyncio.sleep(0.05)


async def run(mib: int, record_bytes: int, rate: float, folder: Path) -> None:
    async with cute_cluster(folder) as cluster:
        leader = await cluster.leader()
        away = next(node for node in cluster.nodes.values() if node is not leader)
        async with AsyncClient([leader.place.http]) as client:
            await client.create_stream("much")
            await client.create_stream("probe")
            await cluster.kill(away)
            await send(client, mib, record_bytes)
            probe = Probe(client, rate)
            probe.start()
            await asyncio.sleep(QUIET_S)
            probe.take()
            await asyncio.sleep(QUIET_S)
            quiet, before = probe.take(), rss_mib(leader.process.pid)
            seen: list[float] = []
            watching = asyncio.create_task(highest_rss(leader, seen))
            started = time.monotonic()
            await cluster.start_node(away.place.id)
            await until_ready(cluster.nodes[away.place.id])
            seconds = time.monotonic() - started
            busy = probe.take()
            await probe.stop()
            watching.cancel()
    print(f"{mib} MiB behind, ready after {seconds:.1f} s: {mib * MIB / seconds / 1e6:.0f} MB/s")
    for name, (p50, p99, longest) in (("before", quiet), ("meanwhile", busy)):
        print(f"appends {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms")
    highest = max(seen)
    print(f"leader: {before:.0f} MiB before, at most {highest:.0f} MiB, {highest - before:+.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--record-bytes", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=200.0, help="appends per second")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cute-catchup-"))
    try:
        asyncio.run(run(arguments.mib, arguments.record_bytes, arguments.rate, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
