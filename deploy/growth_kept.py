"""One stream that keeps more and more, in segments of the default size, and in many small ones."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from catchup import until_ready
from growth_nodes import checkpoints, open_files
from growth_report import Point
from processes import rss_mib_of
from systems import CuteSystem, cute_cluster

from cute_logger.client import AsyncClient

KIB = 1 << 10
READS = 300
RESTARTS = 3
SMALL_SEGMENT_BYTES = 64 * KIB
SMALL_CHECKPOINT_BYTES = 2 * 1024 * KIB
"""As small against the whole as with the defaults, so that as small a part is not synced yet."""


async def measure_bytes(sizes_kib: Sequence[int], folder: Path) -> list[Point]:
    """Points in MiB."""
    return await _measure([size * KIB for size in sizes_kib], 1024 * KIB, {}, folder)


async def measure_segments(counts: Sequence[int], folder: Path) -> list[Point]:
    """Points in segments."""
    os.environ["CUTE_CHECKPOINT_BYTES"] = str(SMALL_CHECKPOINT_BYTES)  # the nodes inherit it
    try:
        sizes = [count * SMALL_SEGMENT_BYTES for count in counts]
        config = {"segment.bytes": SMALL_SEGMENT_BYTES}
        return await _measure(sizes, SMALL_SEGMENT_BYTES, config, folder)
    finally:
        del os.environ["CUTE_CHECKPOINT_BYTES"]


async def _measure(
    sizes: Sequence[int], unit: int, config: dict[str, int | str | bool], folder: Path
) -> list[Point]:
    points = []
    kept = records = 0
    async with cute_cluster(folder) as cluster, AsyncClient(cluster.servers) as client:
        await client.create_stream("kept", config)
        for size in sizes:
            more, begun = size - kept, time.monotonic()
            records += await _append(client, more)
            seconds, kept = time.monotonic() - begun, size
            figures = {
                "append MB/s": more / seconds / 1e6,
                "RSS of three nodes, MiB": rss_mib_of(cluster.pids),
                "open files of a node": open_files(cluster),
                "last checkpoint ms": 1000
                * max(s for _, s in (await checkpoints(cluster)).values()),
                "read one at random, p50 ms": await _read_ms(client, records),
                "start after kill -9, s": await _restart_s(cluster),
            }
            points.append(Point(size / unit, figures))
            shown = ", ".join(f"{name} {figure:.4g}" for name, figure in figures.items())
            print(f"{size // KIB} KiB kept: {shown}", flush=True)
    return points


async def _append(client: AsyncClient, size: int) -> int:
    """Append so many bytes in values of 10 KB at most; return how many records."""
    value = os.urandom(min(10_000, size))
    count = size // len(value)
    async with client.producer("kept") as producer:
        for _ in range(count):
            await producer.send(value)
    return count


async def _read_ms(client: AsyncClient, records: int) -> float:
    dice = random.Random(1)
    taken = []
    for _ in range(READS):
        begun = time.monotonic()
        page = await client.read("kept", dice.randrange(records), limit=1)
        taken.append((time.monotonic() - begun) * 1000)
        assert len(page) == 1
    return statistics.median(taken)


async def _restart_s(cluster: CuteSystem) -> float:
    """Kill a follower and start it, several times; from its start until it is ready."""
    leader = await cluster.leader()
    node = next(node for node in cluster.nodes.values() if node is not leader)
    taken = []
    for _ in range(RESTARTS):
        cluster.nodes[node.place.id].signal(signal.SIGKILL)
        await cluster.nodes[node.place.id].process.wait()
        begun = time.monotonic()
        await cluster.start_node(node.place.id)
        async with asyncio.timeout(60):
            await until_ready(cluster.nodes[node.place.id])
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)
