"""What nodes tell of themselves while the load on them grows."""

from __future__ import annotations

import os

import aiohttp
from systems import CuteSystem


async def longest_checkpoint_s(cluster: CuteSystem) -> float:
    """Return how long the last checkpoint took on the node where it took longest; 0: none yet."""
    found = [0.0]
    async with aiohttp.ClientSession() as session:
        for node in cluster.nodes.values():
            async with session.get(f"{node.place.http}/metrics") as answer:
                metrics = plain_metrics(await answer.text())
            found.append(metrics.get("cute_checkpoint_seconds", 0.0))
    return max(found)


def plain_metrics(text: str) -> dict[str, float]:
    """Read the metrics without labels."""
    lines = [line.split() for line in text.splitlines() if line and line[0] not in "#"]
    return {name: float(value) for name, value, *_ in lines if "{" not in name}


def open_files(cluster: CuteSystem) -> int:
    """Files and sockets of the node that has most of them."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in cluster.pids)
