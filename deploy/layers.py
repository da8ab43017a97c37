"""Where the processor's time goes, layer by layer: one produce and one read.

    python deploy/layers.py [--seconds 8] [--sizes 100 1000 10000] [--results deploy/results]

Three nodes under the loads of `cute bench`. The kernel counts each thread's CPU time, of the event
loop's thread in and out of system calls; the part out of them is split up by py-spy, which looks at
who holds the interpreter 200 times a second, from outside. A layer is the innermost frame that
belongs to one: the standard library and C count for who called them. Writes
`profile-YYYY-MM-DD.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import machine
import report
from bench import ROOT
from processes import TICKS_PER_S, children_of, read_text
from stacks import LAYERS, LOOP, SYSTEM, Profile, ThreadTimes, package_roots, places_in, split_up
from svg import number
from systems import ADMIN, CuteSystem, cute_cluster

from cute_logger.client import AsyncClient
from cute_logger.node.cli.bench.case import Case, Kind
from cute_logger.node.cli.bench.runner import measure
from cute_logger.node.cli.bench.share import Outcome
from cute_logger.node.cli.bench.target import CuteTarget

RATE_HZ = 200
FUNCTIONS_SHOWN = 8
WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Profiled:
    outcome: Outcome
    records: int
    """Acknowledged, or read, while it was looked at."""
    entries: int
    """Raft entries in that time."""
    parts: dict[str, Profile]
    """By `leader`, `follower`, `client`."""


async def look(pid: int, seconds: float, folder: Path) -> Profile:
    """Sample one process, and take its threads' times over the same stretch."""
    before = thread_times(pid)
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    dumped = await _output(spy, "dump", "--pid", str(pid), "--json", "--nonblocking")
    names = {
        thread["os_thread_id"]: re.sub(r"[_-]?\d+$", "", thread["thread_name"] or "")
        for thread in json.loads(dumped or "[]")
    }
    raw = folder / f"{pid}.raw"
    sampling = asyncio.create_task(
        _output(
            *(spy, "record", "--gil", "--nonblocking", "--format", "raw", "--full-filenames"),
            *("--pid", str(pid), "--rate", str(RATE_HZ), "--duration", str(max(1, int(seconds)))),
            *("--output", str(raw)),
        )
    )
    after = before
    while not sampling.done():  # a client ends when it is done: its last times are what counts
        with contextlib.suppress(FileNotFoundError):
            now = thread_times(pid)
            after = now if pid in now.user_s else after
        await asyncio.sleep(0.05)
    text = await asyncio.to_thread(lambda: raw.read_text() if raw.exists() else "")
    return split_up(pid, before, after, names, places_in(text, package_roots()))


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    return (await process.communicate())[0].decode()


def thread_times(pid: int) -> ThreadTimes:
    times = ThreadTimes({}, {})
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            fields = read_text(f"/proc/{pid}/task/{thread}/stat").rpartition(")")[2].split()
            times.user_s[int(thread)] = int(fields[11]) / TICKS_PER_S
            times.system_s[int(thread)] = int(fields[12]) / TICKS_PER_S
    return times


async def profile(cluster: CuteSystem, case: Case, folder: Path) -> Profiled:
    """Play a case and look at all who take part while it is measured."""
    leader = await cluster.leader()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    begun = asyncio.Event()
    admin = CuteTarget([leader.place.http], ADMIN)
    async with AsyncClient([leader.place.http]) as client:
        measuring = asyncio.create_task(measure(case, [leader.place.http], admin, begins=begun.set))
        await begun.wait()
        (worker,) = children_of(os.getpid(), "bench.worker")
        if case.kind is not Kind.CATCH_UP:  # that is over soon: nothing of it is to be missed
            await asyncio.sleep(case.warm_up_s / 2)
        pids = (leader.process.pid, follower.process.pid, worker)
        index = (await client.cluster()).commit_index
        looking = asyncio.gather(*(look(pid, case.seconds - 1, folder) for pid in pids))
        began = time.monotonic()
        parts = dict(zip(("leader", "follower", "client"), await looking, strict=True))
        entries, seconds = (await client.cluster()).commit_index - index, time.monotonic() - began
        outcome = await measuring
    await admin.close()
    is_whole = case.kind is Kind.CATCH_UP
    records = outcome.total if is_whole else outcome.records_per_s * seconds
    return Profiled(outcome, max(1, round(records)), entries, parts)


def section(profiled: Profiled) -> str:
    """A table of one case: CPU microseconds per record and milliseconds per MB."""
    outcome, parts, records = profiled.outcome, profiled.parts, profiled.records
    megabytes = records * outcome.case.value_bytes / 1e6
    order = [*dict.fromkeys(name for name, _ in LAYERS), LOOP, SYSTEM]
    threads = sorted({name for part in parts.values() for name in part.seconds} - {*order})
    rows = []
    for layer in order + threads:
        seconds = [part.seconds.get(layer, 0.0) for part in parts.values()]
        if any(seconds):
            rows.append([layer, *_costs(seconds, records, megabytes)])
    totals = [part.cpu_s for part in parts.values()]
    rows.append(["**all**", *(f"**{cost}**" for cost in _costs(totals, records, megabytes))])
    told = ""
    if outcome.case.kind is not Kind.CATCH_UP and profiled.entries:
        costs = ", ".join(
            f"{name} {number(seconds / profiled.entries * 1e6)}"
            for name, seconds in zip(parts, totals, strict=True)
        )
        per_entry = number(records / profiled.entries)
        told = f"; {per_entry} records a Raft entry, CPU µs an entry: {costs}"
    seen = ", ".join(f"{name} {part.samples}" for name, part in parts.items())
    return (
        f"## {outcome.case.name}\n\n{outcome.records_per_s:,.0f} records/s,"
        f" {outcome.mb_per_s:,.1f} MB/s{told}. Samples: {seen}.\n\n"
        f"{report.table(['CPU µs a record', *parts, 'these three, ms a MB'], rows)}\n"
        f"{_dearest(parts, records)}\n"
    )


def _dearest(parts: dict[str, Profile], records: int) -> str:
    """The functions that cost most, with what they call in libraries."""
    lines = []
    for name, part in parts.items():
        most = sorted(part.functions.items(), key=lambda each: -each[1])[:FUNCTIONS_SHOWN]
        told = ", ".join(f"{function} {number(s / records * 1e6)}" for function, s in most)
        lines.append(f"- {name}, µs a record: {told}")
    return "\n".join(lines) + "\n"


def _costs(seconds: list[float], records: int, megabytes: float) -> list[str]:
    each = [number(one / records * 1e6) for one in seconds]
    return [*each, number(sum(seconds) / megabytes * 1e3)]


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
        "CPU time of the leader, one of two followers, and one client process, by layer of the"
        " event loop and by the other threads; times by the kernel's count, layers by samples.\n\n"
    )
    text += "\n".join(map(section, found))
    path = report.write(arguments.results, "profile", text, [], {})
    print(os.path.relpath(path))
    return 1 if any(each.outcome.errors for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
