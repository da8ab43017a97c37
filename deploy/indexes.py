"""Index millions of records of a live stream, and look keys up with and without.

    python deploy/indexes.py [--records 2000000] [--keys 1000000]

One node, records of 100 bytes in batches of 1000. Prints, as lines of a Markdown table: the rate
of appends before and while an index is built, the rate at which it is built, look-ups of keys in
process and over HTTP against a scan, the segments that Bloom filters skip, memory and disk.
`--records 10000000` is the full size; it takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from processes import free_ports

from cute_logger.client import AsyncClient, Record, UnknownKey
from cute_logger.node.cli.local_cluster import NodePlace, NodeProcess, leader_of, start_node
from cute_logger.replication.config import ReplicaConfig
from cute_logger.replication.replica import Replica
from cute_logger.replication.search_terms import Asked

MIB = 1 << 20
BATCH_RECORDS = 1000
VALUE_BYTES = 80
LIVE_S = 5.0
LOOKS = 300
USED = 2000

used: dict[int, int] = {}
"""Some of the keys that records have."""


def used_key() -> bytes:
    return key_of(random.choice(list(used.values())))


def rss_mib(node: NodeProcess) -> float:
    with open(f"/proc/{node.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def anonymous_mib(node: NodeProcess) -> float:
    """Without the mapped files, which the kernel takes back when it wants."""
    with open(f"/proc/{node.process.pid}/status") as status:
        found = [line.split()[1] for line in status if line.startswith("RssAnon")]
    return int(found[0]) / 1024


def key_of(number: int) -> bytes:
    return b"key-%012d" % number


def batch(numbers: list[int]) -> list[Record | bytes | str]:
    return [Record(os.urandom(VALUE_BYTES), key=key_of(number)) for number in numbers]


async def append(client: AsyncClient, records: int, keys: int) -> float:
    """Append records with random keys, four batches in flight; records per second."""
    left = iter(range(records // BATCH_RECORDS))

    async def work() -> None:
        for _ in left:
            numbers = [random.randrange(keys) for _ in range(BATCH_RECORDS)]
            await client.produce("big", batch(numbers))
            used[numbers[0] % USED] = numbers[0]

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(4)))
    return records / (time.monotonic() - began)


async def append_for(client: AsyncClient, seconds: float, keys: int) -> float:
    """Append for some time, as fast as it goes; records per second."""
    began = time.monotonic()
    counts = [0]

    async def work() -> None:
        while time.monotonic() - began < seconds:
            numbers = [random.randrange(keys) for _ in range(BATCH_RECORDS)]
            await client.produce("big", batch(numbers))
            used[numbers[0] % USED] = numbers[0]
            counts[0] += BATCH_RECORDS

    await asyncio.gather(*(work() for _ in range(4)))
    return counts[0] / (time.monotonic() - began)


async def build(client: AsyncClient, records: int, name: str, on: str, kind: str) -> float:
    """Create an index and wait for it; records per second."""
    began = time.monotonic()
    await client.create_index("big", name, on, kind=kind)
    while (await client.index("big", name)).state != "ready":
        await asyncio.sleep(0.1)
    return records / (time.monotonic() - began)


async def percentiles(look: Callable[[], Awaitable[object]], count: int) -> tuple[float, float]:
    """Median and 99th percentile in ms."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        await look()
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def size_mib(folder: str) -> float:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in paths) / MIB


async def in_process(folder: str) -> tuple[float, float]:
    """Look-ups by one process that is the node, without HTTP."""
    (port,) = free_ports(1)
    config = ReplicaConfig(id="n1", data=folder, raft_address=("127.0.0.1", port), peers={})
    replica = await Replica.start(config)
    try:
        while not replica.ready or replica.index("big", "key").state != "ready":
            await asyncio.sleep(0.05)

        async def look() -> None:
            asked = Asked(eq=used_key(), is_descending=True)
            await replica.search("big", "key", asked, limit=1, bytes_max=MIB)

        await percentiles(look, 50)
        return await percentiles(look, LOOKS)
    finally:
        await replica.stop()


async def run(records: int, keys: int, folder: str) -> None:
    http, raft = free_ports(2)
    place = NodePlace("n1", http, raft, f"{folder}/n1")
    node = await start_node(place, [place])
    try:
        await leader_of([node])
        async with AsyncClient([place.http], timeout=600) as client:
            await client.create_stream("big")
            show("records of 100 B, distinct keys up to", f"{records:,}, {keys:,}")
            show("append, records/s", f"{await append(client, records, keys):,.0f}")
            before = anonymous_mib(node)
            await measure(client, records, keys, place.data)
            show("RSS of the node, MiB", f"{rss_mib(node):.0f}, {anonymous_mib(node):.0f} without")
            show("… before indexes, without mapped files", f"{before:.0f}")
    finally:
        node.signal(signal.SIGTERM)
        await node.process.wait()
    median, tail = await in_process(place.data)
    show("newest record of a key, in process, p50, p99 ms", f"{median:.2f}, {tail:.2f}")


async def measure(client: AsyncClient, records: int, keys: int, data: str) -> None:
    async def scan() -> None:
        await absent_key(client)

    began = time.perf_counter()
    await scan()
    scan_ms = (time.perf_counter() - began) * 1000
    show("a key by scan without filters, ms", f"{scan_ms:,.0f}")
    await asyncio.sleep(1)
    segments = (await client.stream("big")).segments - 1
    while (await skipped(client))[0] < segments:
        await scan()
        await asyncio.sleep(0.5)
    looked, done = await skipped(client)
    median, _ = await percentiles(scan, 20)
    looked_now, done_now = await skipped(client)
    share = (done_now - done) / max(1, looked_now - looked)
    show("an absent key with filters, p50 ms", f"{median:.1f}")
    show("segments skipped for absent keys", f"{share:.1%} of {segments} a scan")
    alone = await append_for(client, LIVE_S, keys)
    rate = await build(client, records, "key", "key", "btree")
    show("build, idle node, records/s", f"{rate:,.0f}")
    await client.drop_index("big", "key")
    building = asyncio.create_task(build(client, records, "key", "key", "btree"))
    during = await append_for(client, LIVE_S, keys)
    show("append alone, while an index is built", f"{alone:,.0f}, {during:,.0f}")
    show("… ratio", f"{during / alone:.2f}")
    await building
    show("size of the index, MiB", f"{size_mib(data + '/indexes'):.0f}")
    show("size of the stream, MiB", f"{size_mib(data + '/streams'):.0f}")

    async def look() -> None:
        await client.get("big", used_key())

    await percentiles(look, 50)
    median, tail = await percentiles(look, LOOKS)
    show("newest record of a key, HTTP, p50, p99 ms", f"{median:.2f}, {tail:.2f}")
    show("… as against the scan", f"{scan_ms / median:,.0f} times")


async def absent_key(client: AsyncClient) -> None:
    """Ask for a key that nobody has; while filters are missing it takes more than one request."""
    try:
        await client.get("big", "nobody")
    except UnknownKey:
        return
    raise AssertionError("nobody wrote this key")


async def skipped(client: AsyncClient) -> tuple[int, int]:
    """Segments that filters looked at, and skipped, by /metrics."""
    import aiohttp

    (url,) = client._caller._endpoints.urls
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    values = dict(line.split(" ") for line in lines if line.startswith("cute_filter"))
    return (
        int(float(values["cute_filter_segments_total"])),
        int(float(values["cute_filter_segments_skipped_total"])),
    )


def show(what: str, result: str) -> None:
    print(f"| {what} | {result} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="cute-indexes-")
    try:
        asyncio.run(run(arguments.records, arguments.keys, folder))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
