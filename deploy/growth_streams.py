"""The same appends spread over more and more streams."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from growth_nodes import checkpoints, longest_checkpoint_s, open_files
from growth_report import Point
from processes import MIB, cpu_s_of, rss_mib_of
from systems import CuteSystem, cute_cluster

from cute_logger.client import AsyncClient, Record

BATCH_RECORDS = 16
VALUE_BYTES = 1000
APPENDS_UNDER_WAY = 32


async def measure(counts: Sequence[int], mib: int, folder: Path) -> list[Point]:
    """Batches of 16 KB, 32 under way, each to the next stream in turn, whatever their number."""
    points = []
    names: list[str] = []
    async with cute_cluster(folder) as cluster, AsyncClient(cluster.servers) as client:
        for count in counts:
            more, begun = count - len(names), time.monotonic()
            for i in range(len(names), count):
                names.append(f"s{i}")
                await client.create_stream(names[-1])
            create_ms = (time.monotonic() - begun) / more * 1000
            figures = await _spread(cluster, client, names, mib * MIB)
            points.append(Point(count, figures | {"create one, ms": create_ms}))
            shown = ", ".join(f"{name} {figure:.4g}" for name, figure in figures.items())
            print(f"{count} streams: {shown}", flush=True)
    return points


async def _spread(
    cluster: CuteSystem, client: AsyncClient, names: Sequence[str], size: int
) -> dict[str, float]:
    batch = [Record(os.urandom(VALUE_BYTES)) for _ in range(BATCH_RECORDS)]
    turns = iter(range(size // (BATCH_RECORDS * VALUE_BYTES)))
    taken_ms: list[float] = []

    async def produce() -> None:
        for turn in turns:
            sent = time.monotonic()
            await client.produce(names[turn % len(names)], batch)
            taken_ms.append((time.monotonic() - sent) * 1000)

    before = await checkpoints(cluster)
    begun, cpu_s = time.monotonic(), cpu_s_of(cluster.pids)
    await asyncio.gather(*(produce() for _ in range(APPENDS_UNDER_WAY)))
    seconds, records = time.monotonic() - begun, len(taken_ms) * BATCH_RECORDS
    cpu_s = cpu_s_of(cluster.pids) - cpu_s
    cuts = statistics.quantiles(taken_ms, n=100)
    return {
        "records/s": records / seconds,
        "p50 ms": cuts[49],
        "p99 ms": cuts[98],
        "nodes' CPU µs a record": cpu_s / records * 1e6,
        "RSS of three nodes, MiB": rss_mib_of(cluster.pids),
        "checkpoint ms": 1000 * await longest_checkpoint_s(cluster, before),
        "open files of a node": open_files(cluster),
    }
