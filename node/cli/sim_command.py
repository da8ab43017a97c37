"""`cute sim`: the product's own code in simulated clusters, seed by seed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import click

from ...replication.sim.modes import MODES
from ...replication.sim.runner import Result, simulate
from .output import print_json, print_table

FAILURES_SHOWN = 20


@dataclass(slots=True)
class Tally:
    """What the seeds of one mode came to."""

    seeds: int = 0
    acknowledged: int = 0
    reads: int = 0
    lives: int = 0
    terms: int = 0
    virtual_s: float = 0.0
    failed: list[int] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.acknowledged += result.acked
        self.reads += result.reads
        self.lives += result.lives
        self.terms += result.terms
        self.virtual_s += result.virtual_s
        if result.violations:
            self.failed.append(result.seed)


@click.command(
    epilog="Examples: cute sim --seeds 1000        cute sim --mode evil --seed 42 --trace"
)
@click.option("--seeds", "count", type=click.IntRange(1), default=100, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, help="The first seed.")
@click.option("--seed", type=click.IntRange(0), help="Only this seed.")
@click.option(
    "--mode",
    type=click.Choice(["all", *MODES]),
    default="all",
    show_default=True,
    help="How hostile the world is; all takes them in turn.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one per core]")
@click.option("--trace", is_flag=True, help="Print everything that happened; with --seed.")
@click.option("--json", "as_json", is_flag=True, help="Print machine-readable output.")
def sim(
    count: int,
    first: int,
    seed: int | None,
    mode: str,
    jobs: int | None,
    trace: bool,
    as_json: bool,
) -> None:
    """Simulate whole clusters under faults and check what they promised.

    The same seed is the same run, byte for byte. Exit status 1 if any seed broke a promise.
    """
    if trace and seed is None:
        raise click.UsageError("--trace goes with --seed")
    modes = list(MODES) if mode == "all" else [mode]
    if seed is not None:
        first, count = seed, len(modes)
    if trace:
        _print_trace(modes, first)
        return
    started = time.monotonic()
    tallies = {name: Tally() for name in modes}
    plays = [(modes[number % len(modes)], first + number // len(modes)) for number in range(count)]
    for name, result in _played(plays, jobs or os.cpu_count() or 1):
        tallies[name].add(result)
        if result.violations and not as_json:
            print(f"{name} {result.seed}: {result.violations[0]}", flush=True)
    _print(tallies, time.monotonic() - started, as_json=as_json)
    if any(tally.failed for tally in tallies.values()):
        sys.exit(1)


def _played(plays: list[tuple[str, int]], jobs: int) -> Iterator[tuple[str, Result]]:
    if jobs == 1:
        for name, seed in plays:
            yield name, simulate(name, seed)
        return
    names, seeds = zip(*plays, strict=True)
    with ProcessPoolExecutor(jobs) as pool:
        yield from zip(names, pool.map(simulate, names, seeds, chunksize=4), strict=True)


def _print_trace(modes: list[str], seed: int) -> None:
    failed = False
    for name in modes:
        result = simulate(name, seed, lines_max=None)
        print(f"--- {name} {seed}")
        print("\n".join(result.lines))
        print(f"--- trace hash {result.trace_hash}")
        for violation in result.violations:
            print(f"--- {violation}")
        failed = failed or bool(result.violations)
    if failed:
        sys.exit(1)


def _print(tallies: dict[str, Tally], seconds: float, *, as_json: bool) -> None:
    played = sum(tally.seeds for tally in tallies.values())
    per_minute = round(60 * played / seconds)
    if as_json:
        rows = {
            name: {
                "seeds": tally.seeds,
                "acknowledged": tally.acknowledged,
                "reads": tally.reads,
                "violations": tally.failed,
            }
            for name, tally in tallies.items()
        }
        print_json({"modes": rows, "seeds_per_minute": per_minute})
        return
    print_table(
        ("mode", "seeds", "virtual s", "processes", "terms", "acknowledged", "reads", "failed"),
        [
            (
                name,
                tally.seeds,
                round(tally.virtual_s),
                tally.lives,
                tally.terms,
                tally.acknowledged,
                tally.reads,
                " ".join(map(str, tally.failed[:FAILURES_SHOWN])) or 0,
            )
            for name, tally in tallies.items()
            if tally.seeds
        ],
    )
    print(f"{played} seeds, {per_minute} a minute")
