"""Figures of several rounds as Markdown, and files with the date in their names."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from svg import number


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def middle(values: Sequence[float]) -> str:
    """The median, with the least and the largest of several rounds."""
    if not values:
        return "-"
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({number(min(values))}–{number(max(values))})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the ratios of values measured right after each other."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
    return statistics.median(pairs) if pairs else None


def machine_table(description: Mapping[str, str], limits: Mapping[str, float]) -> str:
    told = "; ".join(f"{name} {text}" for name, text in description.items())
    rows = [[name, number(figure)] for name, figure in limits.items()]
    return f"{told}.\n\n{table(['what the machine can do at best', ''], rows)}"


def write(folder: Path, name: str, text: str, raw: object, plots: Mapping[str, str]) -> Path:
    """Write `NAME-DATE.md`, `.json` and one SVG for each plot; return the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{datetime.date.today()}"
    shown = "".join(f"\n![{plot}]({stem}-{plot}.svg)\n" for plot in plots)
    path = folder / f"{stem}.md"
    path.write_text(text + shown)
    (folder / f"{stem}.json").write_text(json.dumps(raw, indent=1) + "\n")
    for plot, drawing in plots.items():
        (folder / f"{stem}-{plot}.svg").write_text(drawing)
    return path
