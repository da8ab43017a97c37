"""Stream real text through a cluster whose leader is killed on the way, and compare every byte.

    python deploy/demo.py [--kills 2] [--lines 400000]

The text is what this machine has: Debian's package database, changelogs and documentation, plain
and still compressed (so arbitrary bytes are in it), or else the repository's own history. It goes
through `cute produce` into one stream while the leader is killed with SIGKILL; each dead node is
started again. Then all nodes are killed at once and started again, and the stream is read back from
every node with `cute read` and compared with the input. Prints records, MB/s and the write gap of
each failover; exits 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from systems import CuteSystem, cute_cluster

from cute_logger.client import AsyncClient, CuteError

STREAM = "demo"
PROBE_STREAM = "probe"
PROBE_EVERY_S = 0.01
CHUNK_BYTES = 1 << 16
FAILOVER_TIMEOUT_S = 30
CUTE = [sys.executable, "-P", "-m", "cute_logger.node.cli.main"]


def corpus_files() -> Iterator[Path]:
    for pattern in ("dpkg/status", "dpkg/available", "dpkg/info/*.list", "dpkg/info/*.md5sums"):
        yield from sorted(Path("/var/lib").glob(pattern))
    documentation = Path("/usr/share/doc")
    yield from sorted(documentation.rglob("changelog*"))
    yield from sorted(documentation.rglob("copyright"))
    yield from sorted(Path("/usr/share/common-licenses").glob("*"))


def corpus_pieces() -> Iterator[bytes]:
    """The machine's own texts; compressed ones both unpacked and as they are."""
    for path in corpus_files():
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            yield data
            if path.suffix == ".gz":
                yield gzip.decompress(data)
    yield subprocess.run(["git", "log", "-p", "--all"], capture_output=True, check=False).stdout


def write_corpus(path: Path, lines_wanted: int) -> tuple[int, int]:
    """Write the corpus, from its beginning again if it is short; returns its lines and bytes."""
    lines = size = 0
    with path.open("wb") as file:
        for piece in itertools.chain(corpus_pieces(), itertools.cycle(corpus_pieces())):
            text = piece if piece.endswith(b"\n") else piece + b"\n"
            file.write(text)
            lines += text.count(b"\n")
            size += len(text)
            if lines >= lines_wanted:
                return lines, size
    raise AssertionError("an endless iterator ended")


@dataclass
class Probe:
    """Appends a small record all the time and notes when each was acknowledged."""

    client: AsyncClient
    acknowledged_at: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(CuteError):
                await self.client.produce(PROBE_STREAM, b"tick", timeout=FAILOVER_TIMEOUT_S)
                self.acknowledged_at.append(time.monotonic())
            await asyncio.sleep(PROBE_EVERY_S)

    async def gap_after(self, moment: float) -> float:
        """Seconds from the last acknowledgement before `moment` to the first after it."""
        async with asyncio.timeout(FAILOVER_TIMEOUT_S):
            while not self.acknowledged_at or self.acknowledged_at[-1] <= moment:
                await asyncio.sleep(0.005)
        first = next(at for at in self.acknowledged_at if at > moment)
        before = [at for at in self.acknowledged_at if at <= moment]
        return first - (before[-1] if before else moment)


@dataclass
class Demo:
    cluster: CuteSystem
    client: AsyncClient
    probe: Probe

    async def kill_leader(self) -> float:
        """Kill the leader, wait until writes go on, start it again; returns the write gap."""
        leader = await self.cluster.leader()
        moment = time.monotonic()
        await self.cluster.kill(leader)
        gap = await self.probe.gap_after(moment)
        await self.cluster.heal()
        killed = leader.place.id
        print(f"killed {killed}: writes went on after {gap * 1000:.0f} ms", flush=True)
        return gap

    async def kill_all(self) -> None:
        """Kill every node at once, start them again and tell when writes went on."""
        await self.cluster.kill_all()
        restarted = time.monotonic()
        healing = asyncio.create_task(self.cluster.heal())
        await self.probe.gap_after(restarted)
        await healing
        first = next(at for at in self.probe.acknowledged_at if at > restarted)
        seconds = first - restarted
        print(f"killed all: writes went on {seconds:.1f} s after the restart", flush=True)

    async def produce(self, corpus: Path, size: int, kills: int) -> list[float]:
        """Feed the corpus to `cute produce`, killing leaders at even distances on the way."""
        urls = ",".join(self.cluster.servers)
        produce = await asyncio.create_subprocess_exec(
            *CUTE, "--server", urls, "produce", STREAM, stdin=asyncio.subprocess.PIPE
        )
        assert produce.stdin is not None
        gaps: list[float] = []
        fed = 0
        with corpus.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                produce.stdin.write(chunk)
                await produce.stdin.drain()
                fed += len(chunk)
                if len(gaps) < kills and fed >= size * (len(gaps) + 1) / (kills + 1):
                    gaps.append(await self.kill_leader())
        produce.stdin.close()
        if await produce.wait() != 0:
            raise SystemExit("cute produce failed")
        return gaps

    async def differs(self, server: str, corpus: Path) -> bool:
        """Whether the node at `server` serves anything else than the corpus, byte for byte."""
        read = await asyncio.create_subprocess_exec(
            *CUTE, "--server", server, "read", STREAM, "--consistency", "linearizable",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert read.stdout is not None
        compare = await asyncio.to_thread(corpus.read_bytes)
        position = 0
        while chunk := await read.stdout.read(1 << 20):
            if compare[position : position + len(chunk)] != chunk:
                read.kill()
                await read.wait()
                return True
            position += len(chunk)
        return await read.wait() != 0 or position != len(compare)


async def run(kills: int, lines_wanted: int, folder: Path) -> int:
    corpus = folder / "corpus"
    lines, size = await asyncio.to_thread(write_corpus, corpus, lines_wanted)
    async with cute_cluster(folder) as cluster, AsyncClient(cluster.servers) as client:
        demo = Demo(cluster, client, Probe(client))
        for stream in (STREAM, PROBE_STREAM):
            await client.create_stream(stream)
        probing = asyncio.create_task(demo.probe.run())
        started = time.monotonic()
        gaps = await demo.produce(corpus, size, kills)
        seconds = time.monotonic() - started
        await demo.kill_all()
        probing.cancel()
        servers = {node.place.id: node.place.http for node in cluster.nodes.values()}
        different = [node for node, url in servers.items() if await demo.differs(url, corpus)]
    print(
        f"{lines} records, {size / 1e6:.1f} MB in {seconds:.1f} s: {size / 1e6 / seconds:.1f} MB/s"
    )
    milliseconds = ", ".join(f"{gap * 1000:.0f}" for gap in gaps)
    if gaps:
        print(f"write gaps: {milliseconds} ms; median {statistics.median(gaps) * 1000:.0f} ms")
    for node in servers:
        print(f"{node}: {'DIFFERENT' if node in different else 'identical'}")
    print(f"{len(different)} differences on {len(servers)} nodes")
    return 1 if different else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2, help="how often the leader is killed")
    parser.add_argument("--lines", type=int, default=400_000, help="lines of text at least")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cute-demo-"))
    try:
        return asyncio.run(run(arguments.kills, arguments.lines, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
