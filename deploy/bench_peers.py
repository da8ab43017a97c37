"""Measure Cute Logger beside NATS JetStream, etcd, RabbitMQ and ZooKeeper at equal durability.

    python deploy/bench_peers.py [--quick] [--rounds 3] [--only PEER …] [--data FOLDER]

Three nodes each on loopback, one system at a time, in turn, again in every round: ratios are taken
within a round. Every append is fsynced on a majority before it is acknowledged. Clients are the
ordinary Python ones, and for NATS and etcd also those in Go, which get more out of the servers:
ratios are to the better of the two. What is not installed is left out, with the reason. Some 55
minutes, with `--quick` eight. Writes `peers-YYYY-MM-DD.md`, the figures as JSON, and plots as SVG.
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
from figures import fail_over, idle_cpu, run_case, started
from peers import go_worker
from peers_report import FULL, QUICK, Findings, Plan, matrix, plots_of, raw_of, text_of
from processes import rss_mib_of
from systems import PYTHON, CuteSystem, System, title_of

from cute_logger.node.cli.bench.case import Case, Kind

BUILT = ROOT / "build" / "go"


def systems_of(names: list[str]) -> tuple[list[Callable[[], System]], dict[str, str]]:
    """Return what can be measured here, and why the rest cannot."""
    found: list[Callable[[], System]] = [CuteSystem]
    missing = {}
    for name in names:
        try:
            module = peers.load(name)
            reason = module.why_not()
        except ImportError as error:
            reason = f"its client is not installed: {error}"
        if reason:
            missing[name] = reason
            continue
        found.append(module.System)
        reason = go_worker.why_not(name)
        try:
            if reason is None:
                found.append(_with_go_client(module.System, go_worker.built(name, BUILT)))
        except OSError as error:
            reason = str(error)
        if reason:
            missing[f"{name} by a Go client"] = reason
    return found, missing


def _with_go_client(make: Callable[[], System], program: Path) -> Callable[[], System]:
    def made() -> System:
        system = make()
        system.client, system.worker = "Go", (str(program),)
        return system

    return made


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
                print(f"{title_of(system)}: {line_of(measured)}", flush=True)
            findings.rss_loaded_mib.append(rss_mib_of(system.pids))
            if plan.failovers and system.client == PYTHON:  # appends by the Python client alone
                killed = await fail_over(system, system.kill_leader, plan.failovers)
                findings.failovers.append(killed)
    except Exception as failure:  # a peer's trouble must not end the others' measurement
        traceback.print_exc()
        findings.failures.append(f"{type(failure).__name__}: {failure}"[:200])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure_all(
    makers: list[Callable[[], System]], plan: Plan, cases: list[Case], folder: Path
) -> dict[str, Findings]:
    findings = {title_of(one): Findings(one.name) for one in (make() for make in makers)}
    for round_number in range(plan.rounds):
        for i, make in enumerate(makers):
            system = make()
            where = folder / f"{round_number}-{i}"
            await measure_one(system, plan, cases, where, findings[title_of(system)])
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eight minutes, to see that it works")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", choices=peers.NAMES, default=[*peers.NAMES])
    parser.add_argument("--data", type=Path, default=ROOT / "build", help="where nodes write")
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = dataclasses.replace(plan, rounds=arguments.rounds)
    makers, missing = systems_of(arguments.only)
    arguments.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="peers-", dir=arguments.data)).resolve()
    try:
        busy = machine.busy_share()
        description, limits = machine.description(), machine.limits(folder, plan.floor_rounds)
        all_findings = asyncio.run(measure_all(makers, plan, matrix(plan).all, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    quick = " --quick" if arguments.quick else ""
    head = (
        f"`deploy/bench_peers.py{quick}`; {100 * busy:.0f} % of the processors were busy with"
        f" something else before it began.\n\n{report.machine_table(description, limits)}"
    )
    text = text_of(all_findings, [make() for make in makers], missing, plan, head)
    raw = {"machine": description, "limits": limits, "systems": raw_of(all_findings)}
    path = report.write(arguments.results, "peers", text, raw, plots_of(all_findings, plan))
    print(f"\n{text}\n{os.path.relpath(path)}")
    return 1 if any(found.failures for found in all_findings.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
