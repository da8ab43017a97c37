"""What a person sees and what a program reads: tables and colour on a terminal, else plain lines.

Only a terminal makes this module import rich.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress


class Counter(Protocol):
    def __call__(self, count: int, size: int) -> None:
        """Count that many more records and bytes."""


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, or to a pipe one line per row with tabs and no heading."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(name)
    for row in texts:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one pair a line; to a pipe with a tab between."""
    if sys.stdout.isatty():
        print_table(("", ""), list(facts.items()))
        return
    for name, value in facts.items():
        print(f"{name}\t{_text(value)}")


def _text(value: object) -> str:
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, bool) else str(value)


@contextmanager
def progress(title: str, *, is_wanted: bool = True) -> Iterator[Counter]:
    """Show on stderr how many records and bytes have passed, if stderr is a terminal."""
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda count, size: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    template = (
        "{task.description} {task.fields[records]:,} records, {task.fields[megabytes]:.1f} MB"
    )
    with Progress(
        SpinnerColumn(), TextColumn(template), TimeElapsedColumn(), console=Console(stderr=True)
    ) as shown:
        task = shown.add_task(title, total=None, records=0, megabytes=0.0)
        totals = [0, 0]

        def count_more(count: int, size: int) -> None:
            totals[0] += count
            totals[1] += size
            shown.update(task, records=totals[0], megabytes=totals[1] / 1e6)

        yield count_more


_BAR_STEP_BYTES = 1 << 20
"""Moving the bar costs more than checking a batch."""


class ByteBar:
    """Bytes of a known whole, passing; shown on stderr if that is a terminal."""

    def __init__(self, shown: Progress | None, title: str) -> None:
        self._shown = shown
        self._task = shown.add_task(title, total=None) if shown is not None else None
        self._waiting = 0

    def begin(self, total: int) -> None:
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, total=total)

    def advance(self, size: int) -> None:
        self._waiting += size
        if self._shown is None or self._task is None or self._waiting < _BAR_STEP_BYTES:
            return
        self._shown.advance(self._task, self._waiting)
        self._waiting = 0

    def print(self, line: str) -> None:
        """Print a line on stdout, above the bar where both are one terminal."""
        if self._shown is not None and sys.stdout.isatty():
            self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)


@contextmanager
def byte_progress(title: str) -> Iterator[ByteBar]:
    """Show a bar of bytes, speed and time left."""
    if not sys.stderr.isatty():
        yield ByteBar(None, title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as shown:
        yield ByteBar(shown, title)
