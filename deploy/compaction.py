"""Compact millions of records on a few keys, and measure what appends and reads notice of it.

    python deploy/compaction.py [--millions 5] [--keys 100000] [--pace 32MiB]

Three nodes on loopback, records of 100 bytes. They are appended to a stream that is not compacted;
then its `cleanup.policy` is altered. Until the files of all nodes have shrunk, appends of 1 KB and
reads of ten records at random offsets go on at a fixed rate. Prints how long it took, the space
before and after, and the latencies before and meanwhile (from the time each was due).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from processes import free_ports

from cute_logger.client import AsyncClient, Record
from cute_logger.node.cli.local_cluster import NodePlace, NodeProcess, leader_of, start_node

STREAM = "state"
PROBE = "probe"
BATCH_RECORDS = 1000
IN_FLIGHT = 4
QUIET_S = 15.0
SETTLED_S = 8.0
MIB = 1 << 20


class Paced:
    """Calls something at a fixed rate, each call timed from when it was due."""

    def __init__(self, call: Callable[[], Awaitable[object]], rate: float) -> None:
        self._call = call
        self._rate = rate
        self._latencies_ms: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(self._time(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _time(self, due: float) -> None:
        await self._call()
        self._latencies_ms.append((time.monotonic() - due) * 1000)

    def take(self) -> str:
        """The latencies since the last call, in words."""
        taken, self._latencies_ms = self._latencies_ms, []
        cuts = statistics.quantiles(taken, n=100)
        return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {max(taken):.1f} ms"


async def fill(client: AsyncClient, millions: int, keys: int) -> float:
    """Append the records, and return the seconds it took."""
    batches = iter(range(0, millions * 1_000_000, BATCH_RECORDS))
    picked = random.Random(0)

    async def produce() -> None:
        for start in batches:
            numbers = range(start, start + BATCH_RECORDS)
            records = [Record(b"%091d" % n, key=b"k%08d" % picked.randrange(keys)) for n in numbers]
            await client.produce(STREAM, records)

    started = time.monotonic()
    await asyncio.gather(*(produce() for _ in range(IN_FLIGHT)))
    return time.monotonic() - started


def stored_bytes(nodes: list[NodeProcess]) -> list[int]:
    """Bytes of the stream's segments on each node; it is the first of the streams."""
    sizes = []
    for node in nodes:
        stores = Path(node.place.data, "streams", f"{1:010d}").glob("*.log*")
        size = 0
        for store in stores:
            try:
                size += store.stat().st_size
            except FileNotFoundError:
                continue
        sizes.append(size)
    return sizes


async def until_settled(nodes: list[NodeProcess], before: int) -> float:
    """Wait until the files of all nodes have shrunk and change no more; when they did."""
    seen, since = stored_bytes(nodes), time.monotonic()
    while True:
        await asyncio.sleep(0.2)
        now = stored_bytes(nodes)
        if now != seen:
            seen, since = now, time.monotonic()
        is_small = max(seen) < before // 2 and max(seen) == min(seen)
        if is_small and time.monotonic() - since > SETTLED_S:
            return since


async def run(millions: int, keys: int, rate: float, folder: str) -> None:
    ports = free_ports(6)
    places = [NodePlace(f"n{i}", ports[i - 1], ports[i + 2], f"{folder}/n{i}") for i in (1, 2, 3)]
    nodes = [await start_node(place, places) for place in places]
    try:
        leads = await leader_of(nodes)
        leader = next(each for each in nodes if each.place.id == leads)
        follower = next(each for each in nodes if each is not leader)
        async with (
            AsyncClient([leader.place.http]) as client,
            AsyncClient([follower.place.http]) as reader,
        ):
            await client.create_stream(STREAM)
            await client.create_stream(PROBE)
            took_s = await fill(client, millions, keys)
            print(f"{millions} million records in {took_s:.0f} s", flush=True)
            value, end = os.urandom(1000), millions * 1_000_000

            async def append() -> None:
                await client.produce(PROBE, [value])

            async def read() -> None:
                await reader.read(STREAM, offset=random.randrange(end), limit=10)

            appends, reads = Paced(append, rate), Paced(read, rate / 4)
            await asyncio.sleep(QUIET_S)
            appends.take(), reads.take()
            await asyncio.sleep(QUIET_S)
            quiet = appends.take(), reads.take()
            before = stored_bytes(nodes)
            started = time.monotonic()
            changes = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
            await client.alter_stream(STREAM, changes)
            ended = await until_settled(nodes, before[0])
            busy = appends.take(), reads.take()
            await appends.stop()
            await reads.stop()
            after = stored_bytes(nodes)
    finally:
        for node in nodes:
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.process.wait() for node in nodes))
    seconds = ended - started
    print(f"compacted in {seconds:.1f} s: {before[0] / seconds / 1e6:.1f} MB/s of the stream")
    print(f"a node's segments: {before[0] / MIB:.0f} MiB before, {after[0] / MIB:.0f} MiB after")
    for what, first, second in zip(("appends", "reads"), quiet, busy, strict=True):
        print(f"{what} before:    {first}\n{what} meanwhile: {second}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=5)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=100.0, help="appends per second")
    parser.add_argument("--pace", default="32MiB", help="compaction_bytes_per_s of the nodes")
    arguments = parser.parse_args()
    os.environ["CUTE_COMPACTION_BYTES_PER_S"] = arguments.pace
    os.environ["CUTE_COMPACTION_PERIOD"] = "500ms"
    folder = tempfile.mkdtemp(prefix="cute-compaction-")
    try:
        asyncio.run(run(arguments.millions, arguments.keys, arguments.rate, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
