"""Measure a local cluster of three nodes from every side, and write down what came out.

    python deploy/bench.py [--quick] [--rounds 3] [--data FOLDER] [--only CASE …] [--results FOLDER]

Produce, read and tail as `cute bench` does; failover of every kind, start, idle processors, memory,
CPU time per record; beside it what the machine's disk, memory and loopback can do at best. Some 18
minutes, with `--quick` two: enough to see that all of it works, too little for figures to quote.
Writes `bench-YYYY-MM-DD.md` with tables of medians, the figures as JSON, and plots as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import machine
import report
import svg
from figures import Failovers, Measured, fail_over, idle_cpu, run_case, started
from processes import rss_mib_of
from systems import CuteSystem

from cute_logger.node.cli.bench.case import Case, Kind

ROOT = Path(__file__).resolve().parent.parent
SIZES = (100, 1000, 10_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything takes."""

    rounds: int
    seconds: float
    warm_up_s: float
    catch_up_bytes: int
    readers: int
    failovers: int
    """Of every kind."""
    starts: int
    idle_s: float
    floor_rounds: int


FULL = Plan(3, 8.0, 2.0, 128 * 1024 * 1024, 100, 20, 5, 10.0, 1000)
QUICK = Plan(1, 1.5, 0.5, 4 * 1024 * 1024, 20, 3, 1, 3.0, 200)


@dataclass
class Findings:
    cases: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    starts_s: list[float] = field(default_factory=list)
    idle_cpu: list[float] = field(default_factory=list)
    rss_idle_mib: list[float] = field(default_factory=list)
    rss_loaded_mib: list[float] = field(default_factory=list)
    failovers: dict[str, Failovers] = field(default_factory=dict)
    """By how the leader was lost."""


def matrix(plan: Plan) -> list[Case]:
    def case(kind: Kind, value_bytes: int, **settings: Any) -> Case:
        timed = {**settings, "seconds": plan.seconds, "warm_up_s": plan.warm_up_s}
        return Case(kind, value_bytes, **timed)

    several = {"producers": 4, "processes": 2}
    widths: tuple[dict[str, int], ...] = ({}, several, {**several, "streams": 4})
    kept = plan.catch_up_bytes
    return [
        *(case(Kind.PIPELINED, size, **width) for width in widths for size in SIZES),
        case(Kind.ONE_IN_FLIGHT, 1000),
        case(Kind.ONE_IN_FLIGHT, 1000, producers=32),
        case(Kind.FIXED_RATE, 1000, rate=500),
        *(case(Kind.CATCH_UP, size, records=min(1_000_000, kept // size)) for size in SIZES),
        case(Kind.TAIL, 100, rate=1000, readers=1),
        case(Kind.TAIL, 100, rate=1000, readers=plan.readers, processes=2),
    ]


async def measure_all(plan: Plan, cases: list[Case], folder: Path) -> Findings:
    findings = Findings()
    for round_number in range(plan.rounds):
        system, where = CuteSystem(), folder / f"round-{round_number}"
        async with started(system, where) as (admin, start_s):
            findings.starts_s.append(start_s)
            await asyncio.sleep(2)
            findings.rss_idle_mib.append(rss_mib_of(system.pids))
            findings.idle_cpu.append(await idle_cpu(system, plan.idle_s))
            for case in cases:
                measured = await run_case(system, admin, case)
                findings.cases[case.name].append(measured)
                print(f"{round_number + 1}: {line_of(measured)}", flush=True)
            findings.rss_loaded_mib.append(rss_mib_of(system.pids))
            if round_number == plan.rounds - 1 and plan.failovers:
                findings.failovers = await fail_over_in_all_ways(system, plan.failovers)
        shutil.rmtree(where)
    for i in range(plan.starts - plan.rounds):
        async with started(CuteSystem(), folder / f"start-{i}") as (_, start_s):
            findings.starts_s.append(start_s)
    return findings


async def fail_over_in_all_ways(system: CuteSystem, times: int) -> dict[str, Failovers]:
    found = {}
    for kind, take_leader_away in (
        ("kill -9 of the leader", system.kill_leader),
        ("leader frozen (SIGSTOP)", system.freeze_leader),
        ("planned transfer", system.transfer_leadership),
    ):
        found[kind] = await fail_over(system, take_leader_away, times)
        gaps = [round(gap, 3) for gap in found[kind].gaps_s]
        print(f"{kind}: gaps of {gaps} s", flush=True)
    return found


def line_of(measured: Measured) -> str:
    """What is printed of a case as soon as it is measured."""
    outcome = measured.outcome
    latency = outcome.latency_ms
    shown = f", p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} ms" if latency else ""
    wrong = f", {outcome.errors} FAILED: {outcome.error}" if outcome.errors else ""
    return f"{outcome.case.name}: {outcome.records_per_s:,.0f} records/s{shown}{wrong}"


def text_of(findings: Findings, head: str, machine_text: str, plan: Plan, seconds: float) -> str:
    headings = (
        "case", "records/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs a record: nodes",
        "client", "errors",
    )  # fmt: skip
    rows = [_row(name, measured) for name, measured in findings.cases.items()]
    return (
        f"# Benchmark, {time.strftime('%Y-%m-%d')}\n\n{head}\n\n{machine_text}\n"
        f"{report.table(headings, rows)}\n"
        f"Medians of {plan.rounds} rounds of {plan.seconds:g} s (least–largest), {seconds:.0f} s in"
        " all; three nodes, the load and one disk share the machine. An acknowledgement means:"
        " fsynced on a majority. *fixed-rate*: from when each append was due. *tail*: records"
        " delivered, from when each was due to be appended to when a reader had it. *CPU*: of all"
        " three nodes, and of the load's own processes.\n\n"
        f"{report.table(['of three nodes', ''], _other_rows(findings))}\n"
        f"{report.table(FAILOVER_HEADINGS, _failover_rows(findings))}\n"
        "*gap*: the longest time without an acknowledgement, with a new append every 5 ms; goals:"
        " killed 0.2 s (at most 0.5), frozen 0.6, planned 0.05.\n"
    )


def _row(name: str, measured: list[Measured]) -> list[str]:
    outcomes = [one.outcome for one in measured]
    latencies = [outcome.latency_ms for outcome in outcomes]
    percentiles = [
        report.middle([latency[percent] for latency in latencies if latency])
        for percent in ("p50", "p99", "p99.9")
    ]
    return [
        name,
        report.middle([outcome.records_per_s for outcome in outcomes]),
        report.middle([outcome.mb_per_s for outcome in outcomes]),
        *percentiles,
        report.middle([one.nodes_cpu_us for one in measured]),
        report.middle([outcome.client_cpu_us for outcome in outcomes]),
        str(sum(outcome.errors for outcome in outcomes)),
    ]


def _other_rows(findings: Findings) -> list[list[str]]:
    return [
        ["start to first acknowledged append, s", report.middle(findings.starts_s)],
        ["CPU while idle, % of a core", report.middle([100 * one for one in findings.idle_cpu])],
        ["resident memory while idle, MiB", report.middle(findings.rss_idle_mib)],
        ["resident memory after the load, MiB", report.middle(findings.rss_loaded_mib)],
    ]


FAILOVER_HEADINGS = (
    "leader lost by", "times", "gap s", "gap on its return s", "acknowledged", "failed", "lost",
    "doubled",
)  # fmt: skip


def _failover_rows(findings: Findings) -> list[list[str]]:
    return [
        [
            kind,
            str(len(found.gaps_s)),
            report.middle(found.gaps_s),
            report.middle(found.return_gaps_s),
            *(str(n) for n in (found.acknowledged, found.failed, found.lost, found.doubled)),
        ]
        for kind, found in findings.failovers.items()
    ]


def plots_of(findings: Findings) -> dict[str, str]:
    """Throughput by size, and latency by percentile of what has no queue of its own making."""
    by_name = {name: measured[-1].outcome for name, measured in findings.cases.items()}
    groups: dict[str, dict[int, float]] = defaultdict(dict)
    curves = []
    for name, outcome in by_name.items():
        case = outcome.case
        if case.kind in (Kind.PIPELINED, Kind.CATCH_UP):
            shape = name.replace(f" {case.value_bytes} B", "")
            groups[shape][case.value_bytes] = outcome.mb_per_s
        elif latency := outcome.latency_ms:
            percents = (("p50", 2.0), ("p90", 10.0), ("p99", 100.0), ("p99.9", 1000.0))
            curves.append((name, [(nines, latency[percent]) for percent, nines in percents]))
    plots = {}
    if groups:
        series = [(name, [sizes.get(size) for size in SIZES]) for name, sizes in groups.items()]
        plots["throughput"] = svg.bars(
            "Throughput by size of the value", "MB/s", [f"{size} B" for size in SIZES], series
        )
    if curves:
        plots["latency"] = svg.lines("Latency", "one of so many appends takes longer", "ms", curves)
    return plots


def raw_of(findings: Findings, description: dict[str, str], limits: dict[str, float]) -> object:
    cases = {
        name: [
            one.outcome.to_dict() | {"nodes_cpu_us_per_record": round(one.nodes_cpu_us, 2)}
            for one in measured
        ]
        for name, measured in findings.cases.items()
    }
    return {
        "machine": description,
        "limits": limits,
        "cases": cases,
        "starts_s": findings.starts_s,
        "idle_cpu": findings.idle_cpu,
        "rss_idle_mib": findings.rss_idle_mib,
        "rss_loaded_mib": findings.rss_loaded_mib,
        "failovers": {kind: asdict(found) for kind, found in findings.failovers.items()},
    }


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes, to see that it works")
    parser.add_argument("--rounds", type=int, help="on a new cluster each")
    parser.add_argument("--data", type=Path, default=ROOT / "build", help="where nodes write")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="cases with a word, failover"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    return parser.parse_args()


def main() -> int:
    arguments = arguments_of()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    cases = [case for case in matrix(plan) if any(word in case.name for word in arguments.only)]
    if not any(word in "failover" for word in arguments.only):
        plan = dataclasses.replace(plan, failovers=0)
    arguments.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.data))
    begun = time.monotonic()
    try:
        busy = machine.busy_share()
        description, limits = machine.description(), machine.limits(folder, plan.floor_rounds)
        findings = asyncio.run(measure_all(plan, cases, folder))
    finally:
        shutil.rmtree(folder)
    quick = " --quick" if arguments.quick else ""
    head = (
        f"`deploy/bench.py{quick}`; {100 * busy:.0f} % of the processors were busy with something"
        " else before it began."
    )
    machine_text = report.machine_table(description, limits)
    text = text_of(findings, head, machine_text, plan, time.monotonic() - begun)
    raw = raw_of(findings, description, limits)
    path = report.write(arguments.results, "bench", text, raw, plots_of(findings))
    print(f"\n{text}\n{os.path.relpath(path)}")
    wrong = any(one.outcome.errors for measured in findings.cases.values() for one in measured)
    lost = any(found.lost + found.doubled for found in findings.failovers.values())
    return 1 if wrong or lost else 0


if __name__ == "__main__":
    sys.exit(main())
