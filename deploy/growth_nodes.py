"""What nodes tell of themselves while the load on them grows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import aiohttp
from systems import CuteSystem

CHECKPOINT_WITHIN_S = 30.0


async def checkpoints(cluster: CuteSystem) -> dict[str, tuple[float, float]]:
    """Return of each node how many checkpoints it took, and how many seconds the last one took."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for name, node in cluster.nodes.items():
            async with session.get(f"{node.place.http}/metrics") as answer:
                metrics = plain_metrics(await answer.text())
            count = metrics["cute_checkpoints_total"]
            found[name] = (count, metrics.get("cute_checkpoint_seconds", 0.0))
    return found


async def longest_checkpoint_s(
    cluster: CuteSystem, since: Mapping[str, tuple[float, float]]
) -> float:
    """Wait until every node took a checkpoint since; return how long the slowest node's took."""
    async with asyncio.timeout(CHECKPOINT_WITHIN_S):
        while True:
            now = await checkpoints(cluster)
            if all(now[name][0] > since[name][0] for name in now):
                return max(seconds for _, seconds in now.values())
            await asyncio.sleep(0.05)


def plain_metrics(text: str) -> dict[str, float]:
    """Read the metrics without labels."""
    lines = [line.split() for line in text.splitlines() if line and line[0] not in "#"]
    return {name: float(value) for name, value, *_ in lines if "{" not in name}


def open_files(cluster: CuteSystem) -> int:
    """Files and sockets of the node that has most of them."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in cluster.pids)
