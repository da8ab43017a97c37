"""Measure Cute Logger beside NATS JetStream, etcd, RabbitMQ and ZooKeeper at equal durability.

    python deploy/bench_peers.py [--quick] [--rounds 3] [--only PEER …] [--data FOLDER]

Three nodes each on loopback, one system at a time, in turn, again in every round: ratios are taken
within a round. Every append is fsynced on a majority before it is acknowledged. Clients are the
ordinary Python ones, so the figures are what a Python program gets; compiled clients get more out
of the peers. What is not installed is left out, with the reason. Some 40 minutes, with `--quick`
six. Writes `peers-YYYY-MM-DD.md`, the figures as JSON, and plots as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import machine
import peers
import report
from bench import ROOT, line_of
from figures import idle_cpu, kill_leaders, run_case, started
from peers_report import FULL, OURS, QUICK, Findings, Plan, matrix, plots_of, raw_of, text_of
from processes import rss_mib_of
from systems import CuteSystem, System

from cute_logger.node.cli.bench.case import Case, Kind


def systems_of(names: list[str]) -> tuple[dict[str, Callable[[], System]], dict[str, str]]:
    """Return what can be measured here, and why the rest cannot."""
    found: dict[str, Callable[[], System]] = {OURS: CuteSystem}
    missing = {}
    for name in names:
        try:
            module = peers.load(name)
            reason = module.why_not()
        except ImportError as error:
            reason = f"its client is not installed: {error}"
        if reason:
            missing[name] = reason
        else:
            found[module.System.name] = module.System
    return found, missing


async def measure_one(
    system: System, plan: Plan, cases: list[Case], folder: Path, findings: Findings
) -> None:
    """One round of one system; a failure ends the round and is told."""
    os.mkdir(folder)
    try:
        async with started(system, folder) as (admin, start_s):
            findings.starts_s.append(start_s)
            await asyncio.sleep(1)
            findings.rss_idle_mib.append(rss_mib_of(system.pids))
            findings.idle_cpu.append(await idle_cpu(system, plan.idle_s))
            await run_case(system, admin, Case(Kind.PIPELINED, 1000, seconds=plan.heat_s))
            for case in cases:
                measured = await run_case(system, admin, case)
                findings.cases[case.name].append(measured)
                print(f"{system.name}: {line_of(measured)}", flush=True)
            findings.rss_loaded_mib.append(rss_mib_of(system.pids))
            if plan.failovers:
                findings.failovers.append(await kill_leaders(system, plan.failovers))
    except Exception as failure:  # a peer's trouble must not end the others' measurement
        traceback.print_exc()
        findings.failures.append(f"{type(failure).__name__}: {failure}"[:200])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure_all(
    systems: dict[str, Callable[[], System]], plan: Plan, cases: list[Case], folder: Path
) -> dict[str, Findings]:
    findings = {name: Findings() for name in systems}
    for round_number in range(plan.rounds):
        for i, (name, make) in enumerate(systems.items()):
            where = folder / f"{round_number}-{i}"
            await measure_one(make(), plan, cases, where, findings[name])
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="six minutes, to see that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", choices=peers.NAMES, default=[*peers.NAMES])
    parser.add_argument("--data", type=Path, default=ROOT / "build", help="where nodes write")
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    systems, missing = systems_of(arguments.only)
    arguments.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="peers-", dir=arguments.data)).resolve()
    try:
        busy = machine.busy_share()
        description, limits = machine.description(), machine.limits(folder, plan.floor_rounds)
        all_findings = asyncio.run(measure_all(systems, plan, matrix(plan).all, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    quick = " --quick" if arguments.quick else ""
    head = (
        f"`deploy/bench_peers.py{quick}`; {100 * busy:.0f} % of the processors were busy with"
        f" something else before it began.\n\n{report.machine_table(description, limits)}"
    )
    text = text_of(all_findings, [make() for make in systems.values()], missing, plan, head)
    raw = {"machine": description, "limits": limits, "systems": raw_of(all_findings)}
    path = report.write(arguments.results, "peers", text, raw, plots_of(all_findings, plan))
    print(f"\n{text}\n{os.path.relpath(path)}")
    return 1 if any(found.failures for found in all_findings.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
