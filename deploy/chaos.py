"""Do every kind of fault to a real cluster again and again, and count what clients lost.

    python deploy/chaos.py [--rounds 5] [--only KIND …] [--results deploy/results]

Needs root on Linux: every node has its own network namespace and its own ext4 on a loop device, and
strace makes disk calls fail. Kinds of fault, load and checks are those of `tests/faults`. Prints a
table and writes it to `chaos-YYYY-MM-DD.md` in the folder of results; exits 1 if a record was lost,
moved or doubled, or a node did not do its duty.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import tracing  # noqa: E402
from support.arena import Arena, why_not  # noqa: E402
from support.faults import FAULTS, Fault  # noqa: E402

ROUND_TIMEOUT_S = 60
HEADINGS = (
    "fault",
    "rounds",
    "acknowledged",
    "lost",
    "moved",
    "doubled",
    "other",
    "gap p50",
    "p99",
    "max",
    "limit",
    "slowest append",
    "remarks",
)


@dataclass
class Tally:
    """What the rounds of one kind of fault gave; times in seconds."""

    fault: Fault
    acknowledged: int = 0
    gaps: list[float] = field(default_factory=list)
    slowest: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return len(self.gaps) + len(self.failures)

    @property
    def is_late(self) -> bool:
        median_max, longest = self.fault.gap_s_median_max, self.fault.gap_s_max
        return bool(self.gaps) and (
            (median_max is not None and statistics.median(self.gaps) > median_max)
            or (longest is not None and max(self.gaps) > longest)
        )

    def row(self) -> list[str]:
        other = sum(self.counts.values()) - sum(
            self.counts[kind] for kind in ("lost", "moved", "doubled")
        )
        remarks = [f"{text} ({count})" for text, count in self.remarks.items()]
        return [
            self.fault.name,
            str(self.rounds),
            str(self.acknowledged),
            *(str(self.counts[kind]) for kind in ("lost", "moved", "doubled")),
            str(other),
            *_quantiles(self.gaps),
            _limit(self.fault) + (" **missed**" if self.is_late else ""),
            f"{self.slowest:.2f}",
            "; ".join([*remarks, *(f"**failed: {text}**" for text in self.failures)]),
        ]


def _quantiles(gaps: list[float]) -> list[str]:
    if not gaps:
        return ["", "", ""]
    ordered = sorted(gaps)
    last = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return [f"{value:.2f}" for value in (statistics.median(ordered), last, ordered[-1])]


def _limit(fault: Fault) -> str:
    median = "" if fault.gap_s_median_max is None else f"p50 {fault.gap_s_median_max:g}"
    longest = "" if fault.gap_s_max is None else f"max {fault.gap_s_max:g}"
    return ", ".join(filter(None, (median, longest)))


async def play(arena: Arena, tally: Tally) -> None:
    """One round: load, fault, recovery, verdict."""
    fault = tally.fault
    async with asyncio.timeout(ROUND_TIMEOUT_S):
        async with arena.loaded() as load:
            await fault.strike(arena, load)
        verdict = await arena.verdict(load)
    tally.acknowledged += verdict.acknowledged
    tally.counts.update(verdict.faults)
    tally.remarks.update(load.remarks)
    tally.gaps.append(load.first_after_strike_s() if fault.takes_all else load.gap_s())
    tally.slowest = max(tally.slowest, load.slowest_s())


def rounds_of(fault: Fault, rounds: int, logs: Path) -> Tally:
    """Play the rounds on one cluster; after a failed round the others get a new cluster."""
    tally = Tally(fault)
    while (left := rounds - tally.rounds) > 0:
        with (
            tempfile.TemporaryDirectory(prefix="cute-chaos-") as folder,
            closing(Arena(Path(folder))) as arena,
            arena.entered(),
        ):
            for _ in range(left):
                if not _succeeds(arena, tally, logs):
                    break
    return tally


def _succeeds(arena: Arena, tally: Tally, logs: Path) -> bool:
    try:
        asyncio.run(play(arena, tally))
    except (Exception, pytest.fail.Exception) as error:
        traceback.print_exc()
        tally.failures.append(f"{type(error).__name__}: {error}"[:200])
        _keep_logs(arena, logs, f"{tally.fault.name}-{tally.rounds}")
        return False
    return True


def _keep_logs(arena: Arena, logs: Path, name: str) -> None:
    kept = logs / name.replace(" ", "-").replace("'", "")
    kept.mkdir(parents=True, exist_ok=True)
    for node in arena.cluster.http:
        (kept / f"{node}.log").write_text(arena.cluster.log_of(node))
    print(f"the nodes' logs are in {kept}", flush=True)


def table(rows: Iterable[list[str]]) -> str:
    lines = [list(HEADINGS), ["---"] * len(HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def report(tallies: list[Tally], rounds: int, seconds: float) -> str:
    """The whole result as Markdown."""
    acknowledged = sum(tally.acknowledged for tally in tallies)
    counts = sum((tally.counts for tally in tallies), Counter[str]())
    wrong = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing wrong"
    return (
        f"# Chaos, {datetime.date.today()}\n\n"
        f"`deploy/chaos.py --rounds {rounds}` on {os.cpu_count()} CPUs, Linux "
        f"{platform.release().partition('-')[0]}, Python {platform.python_version()}; "
        f"load average {os.getloadavg()[2]:.1f}, the cluster's own share included. "
        f"{len(tallies)} kinds of fault in {seconds:.0f} s: "
        f"{acknowledged} records acknowledged, {wrong}.\n\n"
        f"{table(tally.row() for tally in tallies)}\n"
        "Seconds. *gap*: longest time without any acknowledgement from the fault on, with a new"
        " append to every node every 50 ms; where all nodes, or a majority, are gone, the time from"
        " their restart (for a full majority: from when there was room) to the first"
        " acknowledgement of an append begun after it. *slowest append*: longest"
        " a retrying client waited for one acknowledgement. *other*: refused but written, never"
        " sent, out of order, stale linearizable reads, nodes that serve different bytes.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind of fault")
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="KIND", default=list(FAULTS))
    parser.add_argument("--results", type=Path, default=ROOT / "deploy" / "results")
    arguments = parser.parse_args()
    if reason := why_not() or tracing.why_not():
        print(reason, file=sys.stderr)
        return 2
    tallies = []
    logs = Path(tempfile.gettempdir()) / f"cute-chaos-{os.getpid()}"
    started = time.monotonic()
    for name in arguments.only:
        tallies.append(rounds_of(FAULTS[name], arguments.rounds, logs))
        print("  ".join(tallies[-1].row()), flush=True)
    text = report(tallies, arguments.rounds, time.monotonic() - started)
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"chaos-{datetime.date.today()}.md").write_text(text)
    return 1 if any(tally.counts or tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
