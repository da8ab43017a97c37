"""Send data through a local cluster and watch each node's resident memory.

    python deploy/memory.py [--mib 1024] [--record-bytes 1000]

Prints every node's RSS after 64 MiB and at the end, and exits 1 if one grew by more than 60 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from processes import MIB, rss_mib
from systems import cute_cluster

from cute_logger.client import AsyncClient

WARM_MIB = 64
GROWTH_MIB_MAX = 60


async def send(client: AsyncClient, mib: int, record_bytes: int) -> None:
    """Append `mib` MiB of records that do not repeat."""
    async with client.producer("memory") as producer:
        for _ in range(mib * MIB // record_bytes):
            await producer.send(os.urandom(record_bytes))


async def run(mib: int, record_bytes: int, folder: Path) -> int:
    async with cute_cluster(folder) as cluster:
        leader = await cluster.leader()
        pids = {name: node.process.pid for name, node in cluster.nodes.items()}
        async with AsyncClient(cluster.servers) as client:
            await client.create_stream("memory")
            await send(client, WARM_MIB, record_bytes)
            before = {node: rss_mib(pid) for node, pid in pids.items()}
            started = time.monotonic()
            await send(client, mib - WARM_MIB, record_bytes)
            seconds = time.monotonic() - started
        after = {node: rss_mib(pid) for node, pid in pids.items()}
    print(f"{mib} MiB in records of {record_bytes} bytes, {(mib - WARM_MIB) / seconds:.1f} MiB/s")
    for node, end in after.items():
        role = "leader" if node == leader.place.id else "follower"
        print(
            f"{node} ({role}): {before[node]:.0f} MiB after {WARM_MIB} MiB, "
            f"{end:.0f} MiB after {mib} MiB, {end - before[node]:+.0f}"
        )
    grown = max(end - before[node] for node, end in after.items())
    return 1 if grown > GROWTH_MIB_MAX else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--record-bytes", type=int, default=1000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cute-memory-"))
    try:
        return asyncio.run(run(arguments.mib, arguments.record_bytes, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
