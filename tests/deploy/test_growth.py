"""The report of growth, from points that are known."""

from __future__ import annotations

import growth
from growth_nodes import plain_metrics
from growth_report import (
    NEXT_LIMIT,
    REASONS,
    TITLES,
    Curve,
    Point,
    plots_of,
    reasons_in,
    text_of,
)

NODES = Curve(
    "nodes",
    [
        Point(3, {"pipelined, records/s": 30_000.0, "one in flight, records/s": 0.0}),
        Point(5, {"pipelined, records/s": 20_000.0, "one in flight, records/s": 0.0}),
    ],
)


def test_every_curve_has_a_heading_and_its_reasons() -> None:
    reasons = reasons_in(REASONS.read_text())
    assert set(growth.CURVES) == set(TITLES)
    assert {*growth.CURVES, NEXT_LIMIT} == set(reasons)
    assert all(text.strip() for text in reasons.values())


def test_a_table_has_a_row_for_each_point() -> None:
    text = text_of([NODES], "head")
    assert "| nodes | pipelined, records/s | one in flight, records/s |" in text
    assert "| 5 | 20,000 | 0 |" in text
    assert text.index("| 5 |") < text.index("## The next limit")


def test_what_is_zero_is_not_drawn_on_a_logarithmic_axis() -> None:
    drawing = plots_of([NODES])["nodes"]
    assert drawing.count("<polyline") == 1


def test_metrics_without_labels_are_read() -> None:
    text = '# HELP a of b\n# TYPE a gauge\na 0.5\nb{peer="n2"} 3\nc_total 2.0\n'
    assert plain_metrics(text) == {"a": 0.5, "c_total": 2.0}
