"""Put millions of records into one stream, and measure how a node starts and reads with them.

    python deploy/millions.py [--millions 10] [--data DIR]

Three nodes on loopback, records of 100 bytes. Then, each several times: a follower is stopped and
started (clean), killed and started (kill -9), each timed until /readyz; records are read at random
by offset and by time, over HTTP from one node, and from its files in this process. The files are in
the page cache by then.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from catchup import until_ready
from processes import rss_mib
from systems import CuteSystem, cute_cluster

from cute_logger.client import AsyncClient, Record
from cute_logger.node.cli.local_cluster import NodePlace
from cute_logger.storage import Log

STREAM = "millions"
BATCH_RECORDS = 1000
IN_FLIGHT = 8
RESTARTS = 5
READS = 2000


async def fill(client: AsyncClient, millions: int) -> float:
    """Append the records, and return the seconds it took."""
    await client.create_stream(STREAM)
    total = millions * 1_000_000
    batches = iter(range(0, total, BATCH_RECORDS))

    async def produce() -> None:
        for start in batches:
            numbers = range(start, start + BATCH_RECORDS)
            records = [Record(b"%092d" % n, key=b"%08d" % (n % 1_000_000)) for n in numbers]
            await client.produce(STREAM, records)

    started = time.monotonic()
    await asyncio.gather(*(produce() for _ in range(IN_FLIGHT)))
    return time.monotonic() - started


async def restart(cluster: CuteSystem, name: str, how: signal.Signals) -> float:
    """End a node and start it; the seconds from its start until it is ready."""
    cluster.nodes[name].signal(how)
    await cluster.nodes[name].process.wait()
    started = time.monotonic()
    await cluster.start_node(name)
    await until_ready(cluster.nodes[name])
    return time.monotonic() - started


async def time_reads(read: Callable[[int], Awaitable[None]], high: int) -> tuple[float, float]:
    """p50 and p99 in ms of reads at random numbers below `high`."""
    dice = random.Random(1)
    taken = []
    for _ in range(READS):
        number = dice.randrange(high)
        started = time.perf_counter()
        await read(number)
        taken.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(taken[READS // 10 :], n=100)
    return cuts[49], cuts[98]


async def read_over_http(place: NodePlace, total: int) -> None:
    url = f"{place.http}/v1/streams/{STREAM}/records"
    async with aiohttp.ClientSession() as session:

        async def page(query: str) -> int:
            async with session.get(f"{url}?{query}&limit=1&max_bytes=1") as answer:
                assert answer.status == 200, await answer.text()
                timestamp: int = (await answer.json())["records"][0]["timestamp"]
                return timestamp

        async def by_offset(number: int) -> None:
            await page(f"offset={number}")

        first, last = await page("offset=0"), await page(f"offset={total - 1}")

        async def by_time(number: int) -> None:
            await page(f"timestamp={first + number}")

        show("by offset over HTTP", await time_reads(by_offset, total))
        show("by time over HTTP", await time_reads(by_time, last - first + 1))


async def read_files(folder: str, total: int) -> None:
    started = time.monotonic()
    with Log.open(folder) as log:
        print(f"log opened in {time.monotonic() - started:.3f} s, {log.segment_count} segments")

        async def by_offset(number: int) -> None:
            (batch,) = log.read(number, 1)
            (record,) = batch.records_at([number])
            assert record.offset == number

        first = log.read(0, 1)[0].timestamp
        newest = log.read(total - 1, 1)[0].timestamp

        async def by_time(number: int) -> None:
            offset = log.find_timestamp(first + number)
            next(log.read(offset, 1)[0].records_from(offset, few=True))

        show("by offset in process", await time_reads(by_offset, total))
        show("by time in process", await time_reads(by_time, newest - first + 1))


def show(what: str, figures: tuple[float, float]) -> None:
    print(f"read {what}: p50 {figures[0]:.3f} ms, p99 {figures[1]:.3f} ms")


async def run(millions: int, folder: Path) -> None:
    async with cute_cluster(folder) as cluster:
        leader = await cluster.leader()
        name = next(name for name, node in cluster.nodes.items() if node is not leader)
        async with AsyncClient(cluster.servers) as client:
            seconds = await fill(client, millions)
        rate = millions * 1e6 / seconds
        print(f"{millions} million records in {seconds:.0f} s, {rate:.0f} a second")
        for how in (signal.SIGKILL, signal.SIGTERM):
            taken = [await restart(cluster, name, how) for _ in range(RESTARTS)]
            middle, worst = statistics.median(taken), max(taken)
            print(f"ready after {how.name}: median {middle:.2f} s, max {worst:.2f} s")
        await read_over_http(cluster.nodes[name].place, millions * 1_000_000)
        sizes = ", ".join(f"{rss_mib(pid):.0f}" for pid in cluster.pids)
        print(f"memory of the nodes: {sizes} MiB")
        data = cluster.nodes[name].place.data
    await read_files(f"{data}/streams/{1:010d}", millions * 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--data", help="folder for the nodes' data; by default a temporary one")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cute-millions-", dir=arguments.data))
    try:
        asyncio.run(run(arguments.millions, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
