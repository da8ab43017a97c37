"""What `bench_peers.py` found, as tables, plots and JSON."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import report
import svg
from bench import SIZES
from figures import Failovers, Measured
from systems import CuteSystem, System

from cute_logger.node.cli.bench.case import Case, Kind

OURS = CuteSystem.name
BATCH_BYTES = 256 * 1024
BATCHES_IN_FLIGHT = 5
"""Of every system's producer; each puts as many records into a batch as suits it."""


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    heat_s: float
    """Load before anything is measured: a Java machine compiles meanwhile."""
    seconds: float
    warm_up_s: float
    catch_up_bytes: int
    failovers: int
    """In each round."""
    idle_s: float
    floor_rounds: int


FULL = Plan(3, 6.0, 8.0, 2.0, 64 * 1024 * 1024, 4, 5.0, 1000)
QUICK = Plan(1, 2.0, 1.5, 0.5, 2 * 1024 * 1024, 1, 2.0, 200)


@dataclass
class Findings:
    """Of one system by one client, one entry a round."""

    system: str
    cases: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    starts_s: list[float] = field(default_factory=list)
    idle_cpu: list[float] = field(default_factory=list)
    rss_idle_mib: list[float] = field(default_factory=list)
    rss_loaded_mib: list[float] = field(default_factory=list)
    failovers: list[Failovers] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def records_per_s(self, case: Case) -> list[float]:
        return [one.outcome.records_per_s for one in self.cases[case.name]]

    def latency_ms(self, case: Case, percent: str) -> list[float]:
        latencies = [one.outcome.latency_ms for one in self.cases[case.name]]
        return [latency[percent] for latency in latencies if latency]


@dataclass(frozen=True, slots=True)
class Matrix:
    pipelined: list[Case]
    one: Case
    paced: Case
    catch_up: list[Case]

    @property
    def all(self) -> list[Case]:
        return [*self.pipelined, self.one, self.paced, *self.catch_up]


def matrix(plan: Plan) -> Matrix:
    def case(kind: Kind, size: int, rate: float = 0.0, records: int = 0) -> Case:
        return Case(
            kind,
            size,
            seconds=plan.seconds,
            warm_up_s=plan.warm_up_s,
            rate=rate,
            records=records,
            batch_bytes=BATCH_BYTES,
            in_flight=BATCHES_IN_FLIGHT,
        )

    kept = {size: min(200_000, plan.catch_up_bytes // size) for size in SIZES}
    return Matrix(
        [case(Kind.PIPELINED, size) for size in SIZES],
        case(Kind.ONE_IN_FLIGHT, 1000),
        case(Kind.FIXED_RATE, 1000, rate=500),
        [case(Kind.CATCH_UP, size, records=kept[size]) for size in SIZES],
    )


def rows_of(all_findings: dict[str, Findings], plan: Plan) -> list[list[str]]:
    """One row for each system, in the order of the headings."""
    cases = matrix(plan)
    rows = []
    for name, found in all_findings.items():
        gaps = [gap for failovers in found.failovers for gap in failovers.gaps_s]
        wrong = [
            f"{sum(f.lost for f in found.failovers)} lost",
            f"{sum(f.doubled for f in found.failovers)} doubled",
        ]
        rows.append(
            [
                name,
                *(report.middle(found.records_per_s(case)) for case in cases.pipelined),
                report.middle(found.records_per_s(cases.one)),
                _percentiles(found, cases.one),
                _percentiles(found, cases.paced),
                *(report.middle(found.records_per_s(case)) for case in cases.catch_up),
                f"{report.middle(gaps)}; {', '.join(wrong)}" if gaps else "-",
                report.middle(found.starts_s),
                f"{report.middle(found.rss_idle_mib)}, {report.middle(found.rss_loaded_mib)}",
                report.middle([100 * share for share in found.idle_cpu]),
                report.middle(
                    [
                        one.nodes_cpu_us + one.outcome.client_cpu_us
                        for one in found.cases[cases.pipelined[1].name]
                    ]
                ),
            ]
        )
    return rows


HEADINGS = (
    "", "100 B rec/s", "1 KB", "10 KB", "1 KB one in flight", "p50, p99 ms",
    "500/s: p50, p99 ms", "catch-up 100 B rec/s", "1 KB", "10 KB",
    "kill -9 of the leader, gap s", "start s", "RSS MiB idle, loaded", "idle CPU %",
    "CPU µs per 1 KB record",
)  # fmt: skip


def _percentiles(found: Findings, case: Case) -> str:
    return ", ".join(report.middle(found.latency_ms(case, percent)) for percent in ("p50", "p99"))


def ratio_rows(all_findings: dict[str, Findings], plan: Plan) -> list[list[str]]:
    """How many times as many records Cute Logger moves; for latency, how many times as long.

    To each peer by the better of its clients, case by case, and to the best of all peers.
    """
    (ours,) = (found for found in all_findings.values() if found.system == OURS)
    peers: dict[str, list[Findings]] = defaultdict(list)
    for found in all_findings.values():
        if found.system != OURS:
            peers[found.system].append(found)
    if len(peers) > 1:
        peers["the best of them"] = [found for each in peers.values() for found in each]
    return [[name, *_ratios(ours, theirs, matrix(plan))] for name, theirs in peers.items()]


def _ratios(ours: Findings, theirs: Sequence[Findings], cases: Matrix) -> list[str]:
    ratios = []
    for case in (*cases.pipelined, *cases.catch_up):
        most = _in_each_round(max, [found.records_per_s(case) for found in theirs])
        ratios.append(report.ratio(ours.records_per_s(case), most))
    for case in (cases.one, cases.paced):
        for percent in ("p50", "p99"):
            least = _in_each_round(min, [found.latency_ms(case, percent) for found in theirs])
            ratios.append(report.ratio(ours.latency_ms(case, percent), least))
    return ["-" if ratio is None else svg.number(ratio) for ratio in ratios]


def _in_each_round(
    choose: Callable[[Sequence[float]], float], measured: Sequence[Sequence[float]]
) -> list[float]:
    """The best of several, round by round; one that was not measured at all is left out."""
    return [choose(each) for each in zip(*filter(None, measured), strict=False)]


RATIO_HEADINGS = (
    "Cute Logger to", "100 B", "1 KB", "10 KB", "catch-up 100 B", "1 KB", "10 KB",
    "one in flight p50", "p99", "500/s p50", "p99",
)  # fmt: skip


def plots_of(all_findings: dict[str, Findings], plan: Plan) -> dict[str, str]:
    cases = matrix(plan)
    sizes = [f"{size} B" for size in SIZES]
    plots = {}
    for plot, title, chosen in (
        ("produce", "Produce, batched, fsynced on a majority, one client", cases.pipelined),
        ("catch-up", "Catch-up read by one client", cases.catch_up),
    ):
        series = []
        for name, found in all_findings.items():
            rates = [sorted(found.records_per_s(case)) for case in chosen]
            middles = [rate[len(rate) // 2] if rate else None for rate in rates]
            series.append((name, [
                None if middle is None else middle * size / 1e6
                for middle, size in zip(middles, SIZES, strict=True)
            ]))  # fmt: skip
        plots[plot] = svg.bars(title, "MB/s", sizes, series)
    return plots


def raw_of(all_findings: dict[str, Findings]) -> dict[str, object]:
    return {
        name: {
            "cases": {
                case: [one.outcome.to_dict() | {"nodes_cpu_us": one.nodes_cpu_us} for one in ones]
                for case, ones in found.cases.items()
            },
            **{
                each: getattr(found, each)
                for each in ("starts_s", "idle_cpu", "rss_idle_mib", "rss_loaded_mib", "failures")
            },
            "failovers": [dataclasses.asdict(each) for each in found.failovers],
        }
        for name, found in all_findings.items()
    }


def text_of(
    all_findings: dict[str, Findings],
    systems: Sequence[System],
    missing: dict[str, str],
    plan: Plan,
    head: str,
) -> str:
    kinds = "; ".join({f"{one.name} {one.version}: {one.durability}": None for one in systems})
    absent = "".join(f"\nNot measured: {name}, {why}.\n" for name, why in missing.items())
    failed = "".join(
        f"\n{name}, a round ended early: {failure}\n"
        for name, found in all_findings.items()
        for failure in found.failures
    )
    errors = "".join(
        f"\n{name}, {case}: {one.outcome.errors} failed, first: {one.outcome.error}\n"
        for name, found in all_findings.items()
        for case, ones in found.cases.items()
        for one in ones
        if one.outcome.errors
    )
    return (
        f"# Beside others, {time.strftime('%Y-%m-%d')}\n\n{head}\n"
        f"{report.table(HEADINGS, rows_of(all_findings, plan))}\n"
        f"{report.table(RATIO_HEADINGS, ratio_rows(all_findings, plan))}\n"
        f"Medians of {plan.rounds} rounds of {plan.seconds:g} s a case (least–largest), ratios"
        " within a round, by our Python client to the better of a peer's clients, case by case;"
        " above 1 Cute Logger moves more, or, for p50 and p99, takes longer. Three nodes of one"
        " system at a time, the load and one disk share the machine. Batches are the same for"
        f" all: up to {BATCH_BYTES // 1024} KiB, {BATCHES_IN_FLIGHT} under way, with as many"
        " records as suit each best: for Cute Logger what the bytes allow, for NATS up to the 1,000"
        " that the server takes in an atomic batch, for etcd and ZooKeeper transactions of up to"
        " 500; RabbitMQ knows no batches and has up to 1,000 messages under way, of no more bytes."
        " *500/s*: open loop, from when each append was due. *gap*: the longest time without an"
        " acknowledgement, with a new append every 5 ms.\n\n"
        f"{kinds}.\n{absent}{failed}{errors}"
    )
