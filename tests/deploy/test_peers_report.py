"""What is said of the peers, from figures that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import peers_report
from figures import Measured
from peers_report import OURS, QUICK, RATIO_HEADINGS, Findings, matrix

from cute_logger.node.cli.bench.histogram import Histogram
from cute_logger.node.cli.bench.share import Outcome

PLAN = dataclasses.replace(QUICK, seconds=1.0)


def findings_of(system: str, rounds: list[int], late_s: float = 0.001) -> Findings:
    """The same number of records in every case, one entry a round."""
    found = Findings(system)
    latencies = Histogram()
    latencies.add(late_s)
    for case in matrix(PLAN).all:
        for records in rounds:
            outcome = Outcome(case, records, records, 1.0, 0, None, 0.0, latencies)
            found.cases[case.name].append(Measured(outcome, 0.0))
    return found


def ratios_of(all_findings: Mapping[str, Findings]) -> dict[str, dict[str, str]]:
    rows = peers_report.ratio_rows(dict(all_findings), PLAN)
    return {row[0]: dict(zip(RATIO_HEADINGS, row, strict=True)) for row in rows}


def test_ratios_are_to_the_better_client_of_a_peer_in_each_round() -> None:
    ratios = ratios_of(
        {
            "a": findings_of(OURS, [100, 100]),
            "b": findings_of("NATS", [50, 10]),
            "c": findings_of("NATS", [20, 50], late_s=0.0005),
        }
    )
    assert set(ratios) == {"NATS"}
    assert ratios["NATS"]["100 B"] == "2"
    assert ratios["NATS"]["500/s p50"] == "2"


def test_with_several_peers_the_best_of_all_has_a_row() -> None:
    ratios = ratios_of(
        {
            "a": findings_of(OURS, [100]),
            "b": findings_of("NATS", [50]),
            "c": findings_of("etcd", [80], late_s=0.004),
        }
    )
    assert ratios["the best of them"]["10 KB"] == ratios["etcd"]["10 KB"] == "1.25"
    assert ratios["the best of them"]["500/s p50"] == ratios["NATS"]["500/s p50"] == "1"


def test_a_client_without_a_figure_does_not_hide_the_others() -> None:
    ratios = ratios_of(
        {
            "a": findings_of(OURS, [100]),
            "b": findings_of("NATS", [50]),
            "c": findings_of("NATS", []),
        }
    )
    assert ratios["NATS"]["100 B"] == "2"
