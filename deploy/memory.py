"""Send data through a local cluster and watch each node's resident memory.

    python deploy/memory.py [--mib 1024] [--record-bytes 1000]

Prints every node's RSS after 64 MiB and at the end, and exits 1 if one grew by more than 60 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time

from demo import free_ports

from cute_logger.client import AsyncClient
from cute_logger.node.cli.local_cluster import NodePlace, NodeProcess, leader_of, start_node

MIB = 1 << 20
WARM_MIB = 64
GROWTH_MIB_MAX = 60


def rss_mib(node: NodeProcess) -> float:
    with open(f"/proc/{node.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


async def send(client: AsyncClient, mib: int, record_bytes: int) -> None:
    """Append `mib` MiB of records that do not repeat."""
    async with client.producer("memory") as producer:
        for _ in range(mib * MIB // record_bytes):
            await producer.send(os.urandom(record_bytes))


async def run(mib: int, record_bytes: int, folder: str) -> int:
    ports = free_ports(6)
    places = [NodePlace(f"n{i}", ports[i - 1], ports[i + 2], f"{folder}/n{i}") for i in (1, 2, 3)]
    nodes = [await start_node(place, places) for place in places]
    try:
        leader = await leader_of(nodes)
        async with AsyncClient([place.http for place in places]) as client:
            await client.create_stream("memory")
            await send(client, WARM_MIB, record_bytes)
            before = [rss_mib(node) for node in nodes]
            started = time.monotonic()
            await send(client, mib - WARM_MIB, record_bytes)
            seconds = time.monotonic() - started
        after = [rss_mib(node) for node in nodes]
    finally:
        for node in nodes:
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.process.wait() for node in nodes))
    print(f"{mib} MiB in records of {record_bytes} bytes, {(mib - WARM_MIB) / seconds:.1f} MiB/s")
    for node, start, end in zip(nodes, before, after, strict=True):
        role = "leader" if node.place.id == leader else "follower"
        print(
            f"{node.place.id} ({role}): {start:.0f} MiB after {WARM_MIB} MiB, "
            f"{end:.0f} MiB after {mib} MiB, {end - start:+.0f}"
        )
    grown = max(end - start for start, end in zip(before, after, strict=True))
    return 1 if grown > GROWTH_MIB_MAX else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--record-bytes", type=int, default=1000)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="cute-memory-")
    try:
        return asyncio.run(run(arguments.mib, arguments.record_bytes, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
