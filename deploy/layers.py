"""Where the processor's time goes, layer by layer: one produce and one read.

    python deploy/layers.py [--seconds 8] [--sizes 100 1000 10000] [--results deploy/results]

Three nodes under the loads of `cute bench`; py-spy looks at the stacks of the leader, a follower
and the client from outside, 200 times a second, and the share of each layer is taken of the CPU
time that the kernel counted for the process. A layer is the innermost frame that belongs to one:
time in the standard library or in C counts for who called it. Writes `profile-YYYY-MM-DD.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import machine
import report
from bench import ROOT
from processes import children_of, cpu_s
from svg import number
from systems import ADMIN, CuteSystem, cute_cluster

from cute_logger.client import AsyncClient
from cute_logger.node.cli.bench.case import Case, Kind
from cute_logger.node.cli.bench.runner import measure
from cute_logger.node.cli.bench.share import Outcome
from cute_logger.node.cli.bench.target import CuteTarget

RATE_HZ = 200
WARM_UP_S = 2.0
ATTACH_S = 0.7
"""From the start of the workers until the profilers begin."""

LAYERS = (
    ("load", r"cute/node/cli/bench/"),
    ("HTTP (aiohttp)", r"/aiohttp/"),
    ("client: encode and decode records", r"cute/client/(record|wire|answers)\.py"),
    ("client: batches and futures", r"cute/client/(producer|batch|window|lanes)\.py"),
    ("client: calls", r"cute/client/"),
    ("answer", r"cute/node/http/(answers|pages|headers)\.py"),
    ("check and pack", r"cute/node/http/"),
    ("propose", r"cute/replication/(coalescer|capacity)\.py"),
    ("WAL: frames and buffer", r"cute/storage/(wal|wal_frame|entry_cache|term_runs)\.py"),
    ("WAL: write and fdatasync", r"cute/storage/wal_"),
    ("peers: messages", r"cute/replication/messages\.py"),
    ("peers: sockets", r"cute/replication/(peers|exchange|introductions)\.py"),
    (
        "apply",
        r"cute/replication/(machine|stream|dedupe|transactions|groups?|recent|unwritten)\.py",
    ),
    (
        "segments",
        r"cute/(replication/(stream_files|segments)|storage/(segment|store|log|index))\.py",
    ),
    ("Raft", r"cute/replication/|/pysyncobj/"),
    ("other", r"cute/"),
)
LOOP = "event loop"
_FRAME = re.compile(r"^(?P<name>.*) \((?P<path>.*):\d+\)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """One process under one load."""

    samples: Counter[str]
    """By layer."""
    cpu_s: float

    def cpu_us(self, layer: str, records: int) -> float:
        """CPU time of a layer per record, microseconds."""
        whole = self.samples.total()
        return self.cpu_s * self.samples[layer] / whole / records * 1e6 if whole else 0.0


@dataclass(frozen=True, slots=True)
class Profiled:
    outcome: Outcome
    entries: int
    """Raft entries of the whole load."""
    parts: dict[str, Profile]
    """By `leader`, `follower`, `client`."""


def layer_of(stack: Iterable[str], roots: dict[str, str]) -> str:
    """Return the layer of the innermost frame that belongs to one; `stack` begins outermost."""
    for frame in reversed([*stack]):
        match = _FRAME.match(frame)
        if match is None:
            continue
        path = match["path"]
        for root, short in roots.items():
            if path.startswith(root):
                path = short + path[len(root) :]
        # What several layers use counts for the one that uses it.
        if re.search(
            r"cute/(storage/(batch|record|codec|filesystem)|replication/commands)\.py", path
        ):
            continue
        for layer, pattern in LAYERS:
            if re.search(pattern, path):
                return layer
    return LOOP


def layers_in(raw: str, roots: dict[str, str]) -> Counter[str]:
    """Count the samples of py-spy's raw format (`frame;frame;… count`) by layer."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[layer_of(stack.split(";"), roots)] += int(count)
    return counts


def package_roots() -> dict[str, str]:
    roots = {}
    for package in ("client", "node", "replication", "storage"):
        spec = importlib.util.find_spec(f"cute_logger.{package}")
        assert spec is not None
        for location in spec.submodule_search_locations or ():
            roots[f"{location}/"] = f"cute/{package}/"
    return roots


async def look(pid: int, seconds: float, folder: Path) -> Counter[str]:
    """Let py-spy sample one process; a process that has ended meanwhile is fine."""
    raw = folder / f"{pid}.raw"
    process = await asyncio.create_subprocess_exec(
        *(shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy")), "record"),
        *("--pid", str(pid), "--rate", str(RATE_HZ), "--duration", str(max(1, round(seconds)))),
        *("--format", "raw", "--full-filenames", "--nonblocking", "--output", str(raw)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()
    text = await asyncio.to_thread(lambda: raw.read_text() if raw.exists() else "")
    return layers_in(text, package_roots())


async def profile(cluster: CuteSystem, case: Case, folder: Path) -> Profiled:
    """Play a case and look at all who take part while it is measured."""
    leader = await cluster.leader()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    pids = {"leader": leader.process.pid, "follower": follower.process.pid}
    begun = asyncio.Event()
    admin = CuteTarget([leader.place.http], ADMIN)
    async with AsyncClient([leader.place.http]) as client:
        measuring = asyncio.create_task(measure(case, [leader.place.http], admin, begins=begun.set))
        await begun.wait()
        index = (await client.cluster()).commit_index
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        await asyncio.sleep(ATTACH_S)
        (worker,) = children_of(os.getpid(), "bench.worker")
        looking = [look(pid, case.seconds, folder) for pid in (*pids.values(), worker)]
        samples = await asyncio.gather(*looking)
        outcome = await measuring
        cpu = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        entries = (await client.cluster()).commit_index - index
    await admin.close()
    cpu["client"] = outcome.client_cpu_s
    parts = {
        name: Profile(counted, cpu[name])
        for name, counted in zip((*pids, "client"), samples, strict=True)
    }
    return Profiled(outcome, entries, parts)


def section(profiled: Profiled) -> str:
    """A table of one case: CPU microseconds per record and milliseconds per MB."""
    outcome, parts = profiled.outcome, profiled.parts
    records = max(1, outcome.total)
    names = [name for name, _ in LAYERS] + [LOOP]
    rows = []
    for layer in names:
        figures = [parts[name].cpu_us(layer, records) for name in parts]
        if any(figures):
            per_mb = sum(figures) / outcome.case.value_bytes * 1e3
            rows.append([layer, *map(number, figures), number(per_mb)])
    totals = [part.cpu_s / records * 1e6 for part in parts.values()]
    per_mb = sum(totals) / outcome.case.value_bytes * 1e3
    rows.append(["**all**", *(f"**{number(total)}**" for total in totals), f"**{number(per_mb)}**"])
    told = ""
    if outcome.case.kind is not Kind.CATCH_UP and profiled.entries:
        per_entry = records / profiled.entries
        costs = ", ".join(
            f"{name} {number(total * per_entry)}" for name, total in zip(parts, totals, strict=True)
        )
        told = f"; {number(per_entry)} records a Raft entry, CPU µs an entry: {costs}"
    seen = ", ".join(f"{name} {part.samples.total()}" for name, part in parts.items())
    return (
        f"## {outcome.case.name}\n\n{outcome.records_per_s:,.0f} records/s,"
        f" {outcome.mb_per_s:,.1f} MB/s{told}. Samples: {seen}.\n\n"
        f"{report.table(['CPU µs a record', *parts, 'all three, ms a MB'], rows)}\n"
    )


async def run(cases: list[Case], folder: Path) -> list[Profiled]:
    found = []
    async with cute_cluster(folder) as cluster:
        for case in cases:
            found.append(await profile(cluster, case, folder))
            print(section(found[-1]), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--records", type=int, default=0, help="what is read of each stream")
    parser.add_argument("--data", type=Path, default=ROOT / "build")
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    arguments = parser.parse_args()
    times = (arguments.seconds, WARM_UP_S)
    cases = [
        Case(kind, size, seconds=times[0], warm_up_s=times[1], records=arguments.records)
        for kind in (Kind.PIPELINED, Kind.CATCH_UP)
        for size in arguments.sizes
    ]
    cases.insert(0, Case(Kind.ONE_IN_FLIGHT, 1000, seconds=times[0], warm_up_s=times[1]))
    arguments.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="profile-", dir=arguments.data)).resolve()
    busy = machine.busy_share()
    try:
        limits = machine.limits(folder, 500)
        found = asyncio.run(run(cases, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = (
        f"# Where the time goes, {time.strftime('%Y-%m-%d')}\n\n`deploy/layers.py`;"
        f" {100 * busy:.0f} % of the processors were busy with something else before it began. "
        f"{report.machine_table(machine.description(), limits)}\n"
        "CPU time of the leader, one of two followers, and one client process, by layer; shares"
        " by samples of their stacks, whole by the kernel's count.\n\n"
    )
    text += "\n".join(map(section, found))
    path = report.write(arguments.results, "profile", text, [], {})
    print(os.path.relpath(path), statistics.mean(p.outcome.errors for p in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
