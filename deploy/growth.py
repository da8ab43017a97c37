"""Measure how the cost of a cluster grows with what it has to carry.

    python deploy/growth.py [--quick] [--only CURVE …] [--data FOLDER] [--results FOLDER]

More streams, more kept, more readers, more nodes, more producers: each on a new cluster on
loopback, one figure after the other. Some seven minutes, with `--quick` two and fewer points.
Writes `growth-YYYY-MM-DD.md` with a table and the reason of each bend, figures as JSON, and plots.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import growth_kept
import growth_streams
import machine
import report
from bench import ROOT, line_of
from figures import Measured, run_case, started
from growth_report import Curve, Point, plots_of, text_of
from processes import rss_mib_of
from systems import CuteSystem

from cute_logger.node.cli.bench.case import Case, Kind
from cute_logger.node.cli.bench.target import Target


@dataclass(frozen=True, slots=True)
class Plan:
    streams: tuple[int, ...]
    spread_mib: int
    """Appended with each number of streams; more than lies between two checkpoints."""
    kept_kib: tuple[int, ...]
    """In segments of the default size."""
    small_segments: tuple[int, ...]
    readers: tuple[int, ...]
    nodes: tuple[int, ...]
    producers: tuple[int, ...]
    seconds: float
    warm_up_s: float


FULL = Plan(
    streams=(1, 10, 100, 300, 1000),
    spread_mib=80,
    kept_kib=(1, 1 << 10, 64 << 10, 1 << 20, 4 << 20),
    small_segments=(16, 160, 800, 1600),
    readers=(1, 10, 100, 300, 1000),
    nodes=(3, 5, 7),
    producers=(1, 2, 4, 8, 16, 32, 64),
    seconds=5.0,
    warm_up_s=2.0,
)
QUICK = Plan(
    streams=(1, 100, 1000),
    spread_mib=70,
    kept_kib=(1, 64 << 10),
    small_segments=(16, 160),
    readers=(1, 100, 1000),
    nodes=(3, 7),
    producers=(1, 8, 64),
    seconds=1.5,
    warm_up_s=1.0,
)
TAIL_RATE = 100.0


async def streams(plan: Plan, folder: Path) -> list[Point]:
    return await growth_streams.measure(plan.streams, plan.spread_mib, folder)


async def kept(plan: Plan, folder: Path) -> list[Point]:
    return await growth_kept.measure_bytes(plan.kept_kib, folder)


async def segments(plan: Plan, folder: Path) -> list[Point]:
    return await growth_kept.measure_segments(plan.small_segments, folder)


async def readers(plan: Plan, folder: Path) -> list[Point]:
    points = []
    system = CuteSystem()
    async with started(system, folder) as (admin, _):
        for count in plan.readers:
            case = Case(
                Kind.TAIL,
                100,
                readers=count,
                processes=2,
                rate=TAIL_RATE,
                seconds=plan.seconds,
                warm_up_s=plan.warm_up_s,
            )
            measured = await run_case(system, admin, case)
            print(line_of(measured), flush=True)
            figures = {
                **_latency(measured),
                "nodes' CPU, cores": measured.nodes_cpu_s / (plan.seconds + plan.warm_up_s),
                "nodes' CPU µs a delivery": measured.nodes_cpu_us,
                "errors": measured.outcome.errors,
            }
            points.append(Point(count, figures))
    return points


async def nodes(plan: Plan, folder: Path) -> list[Point]:
    points = []
    for count in plan.nodes:
        system = CuteSystem(count)
        async with started(system, folder / str(count)) as (admin, _):
            figures = await _produced(system, plan, admin)
            figures["RSS of a node, MiB"] = rss_mib_of(system.pids) / count
        points.append(Point(count, figures))
        shutil.rmtree(folder / str(count))
    return points


async def producers(plan: Plan, folder: Path) -> list[Point]:
    system = CuteSystem()
    async with started(system, folder) as (admin, _):
        return [
            Point(count, await _produced(system, plan, admin, count)) for count in plan.producers
        ]


async def _produced(
    system: CuteSystem, plan: Plan, admin: Target, count: int = 1
) -> dict[str, float]:
    """Values of 1 KB, pipelined and one in flight."""
    figures: dict[str, float] = {"errors": 0}
    for name, kind in (("pipelined", Kind.PIPELINED), ("one in flight", Kind.ONE_IN_FLIGHT)):
        case = Case(
            kind,
            1000,
            producers=count,
            processes=2,
            seconds=plan.seconds,
            warm_up_s=plan.warm_up_s,
        )
        measured = await run_case(system, admin, case)
        print(f"{len(system.pids)} nodes, {line_of(measured)}", flush=True)
        figures[f"{name}, records/s"] = measured.outcome.records_per_s
        figures[f"{name}, CPU µs of the nodes a record"] = measured.nodes_cpu_us
        if kind is Kind.ONE_IN_FLIGHT:
            figures |= _latency(measured)
        figures["errors"] += measured.outcome.errors
    return figures


def _latency(measured: Measured) -> dict[str, float]:
    latency = measured.outcome.latency_ms or {}
    return {f"{percent} ms": latency[percent] for percent in ("p50", "p99") if latency}


CURVES: dict[str, Callable[[Plan, Path], Awaitable[list[Point]]]] = {
    "streams": streams,
    "kept": kept,
    "segments": segments,
    "readers": readers,
    "nodes": nodes,
    "producers": producers,
}


async def measure_all(plan: Plan, names: list[str], folder: Path) -> list[Curve]:
    curves = []
    for name in names:
        begun = time.monotonic()
        curves.append(Curve(name, await CURVES[name](plan, folder / name)))
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        shutil.rmtree(folder / name, ignore_errors=True)
    return curves


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes, to see that it works")
    parser.add_argument("--only", nargs="+", choices=CURVES, default=[*CURVES])
    parser.add_argument("--data", type=Path, default=ROOT / "build", help="where nodes write")
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    arguments.data.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="growth-", dir=arguments.data))
    try:
        busy = machine.busy_share()
        description = machine.description()
        curves = asyncio.run(measure_all(plan, arguments.only, folder))
    finally:
        shutil.rmtree(folder)
    quick = " --quick" if arguments.quick else ""
    head = (
        f"`deploy/growth.py{quick}`; {100 * busy:.0f} % of the processors were busy with something"
        f" else before it began. {'; '.join(f'{a} {b}' for a, b in description.items())}."
    )
    text = text_of(curves, head)
    raw = {"machine": description, "curves": {curve.name: curve.raw() for curve in curves}}
    path = report.write(arguments.results, "growth", text, raw, plots_of(curves))
    print(f"\n{text}\n{os.path.relpath(path)}")
    return (
        1 if any(point.figures.get("errors") for curve in curves for point in curve.points) else 0
    )


if __name__ == "__main__":
    sys.exit(main())
