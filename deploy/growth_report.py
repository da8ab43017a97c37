"""What `growth.py` measured as tables, plots and JSON, with the reasons from `growth.md`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import report
import svg

REASONS = Path(__file__).with_name("growth.md")
NEXT_LIMIT = "next limit"


class Title(NamedTuple):
    heading: str
    unit: str
    """Of what grows."""
    plotted: tuple[str, ...]


_KEPT = ("append MB/s", "read one at random, p50 ms", "start after kill -9, s")
_PRODUCED = ("pipelined, records/s", "one in flight, records/s")

TITLES = {
    "streams": Title("Streams", "streams", ("records/s", "p99 ms", "checkpoint ms")),
    "kept": Title("Bytes kept", "MiB", _KEPT),
    "segments": Title("Segments kept", "segments", (*_KEPT, "last checkpoint ms")),
    "readers": Title("Tailing readers", "readers", ("p50 ms", "p99 ms")),
    "nodes": Title("Nodes", "nodes", _PRODUCED),
    "producers": Title("Producers", "producers", (*_PRODUCED, "p50 ms", "p99 ms")),
}


@dataclass(frozen=True, slots=True)
class Point:
    at: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    points: list[Point]

    def raw(self) -> list[dict[str, float]]:
        return [{self.name: point.at, **point.figures} for point in self.points]


def reasons_in(text: str) -> dict[str, str]:
    """Return the sections of a text by their headings."""
    sections = [section.partition("\n") for section in text.split("\n## ")[1:]]
    return {heading: body.strip("\n") + "\n" for heading, _, body in sections}


def text_of(curves: Sequence[Curve], head: str) -> str:
    reasons = reasons_in(REASONS.read_text())
    parts = [f"# Growth, {time.strftime('%Y-%m-%d')}\n\n{head}\n"]
    for curve in curves:
        names = [*curve.points[0].figures]
        rows = [
            [svg.number(point.at), *(svg.number(point.figures[name]) for name in names)]
            for point in curve.points
        ]
        table = report.table([TITLES[curve.name].unit, *names], rows)
        parts.append(f"## {TITLES[curve.name].heading}\n\n{table}\n{reasons[curve.name]}")
    parts.append(f"## The next limit\n\n{reasons[NEXT_LIMIT]}")
    return "\n".join(parts)


def plots_of(curves: Sequence[Curve]) -> dict[str, str]:
    """One of each curve: figures of one unit, those above zero."""
    plots = {}
    for curve in curves:
        title = TITLES[curve.name]
        lines = []
        for name in title.plotted:
            line = [(p.at, p.figures[name]) for p in curve.points if p.figures[name] > 0]
            if line:
                lines.append((name, line))
        if lines:
            plots[curve.name] = svg.lines(title.heading, title.unit, "", lines)
    return plots
