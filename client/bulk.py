"""The values of one `send_many`, from their check to their outcome.

    Bulk ──> Part, Part, …  as many of its rows as go into one batch

Its future is done when all rows have been taken and each part is settled, in whatever order.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import TypeAlias

from .batch_format import BARE_ROW_BYTES, Row, row_of, row_size
from .errors import CuteError, MixedOutcome, Refused
from .record import Record, records_of

Outcome: TypeAlias = range | CuteError
"""The offsets of some records, or why they have none."""


class Part:
    """Rows of a bulk that travel in one batch."""

    __slots__ = ("_bulk", "count", "outcome")

    def __init__(self, bulk: Bulk, count: int) -> None:
        self._bulk = bulk
        self.count = count
        self.outcome: Outcome | None = None

    def succeed(self, first_offset: int) -> int:
        """Return the offset behind the part."""
        end = first_offset + self.count
        self._settle(range(first_offset, end))
        return end

    def fail(self, failure: CuteError) -> None:
        self._settle(failure)

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._bulk.see_settled()


class Bulk:
    __slots__ = ("_ends", "_parts", "_rows", "_settled_count", "_taken", "future", "row_bytes_max")

    def __init__(
        self, values: Iterable[Record | bytes | str], future: asyncio.Future[list[int]]
    ) -> None:
        """Raises TypeError or ValueError for a value that cannot be sent."""
        self._rows, sizes = _rows_and_sizes(listed_values(values))
        self._ends = [0, *accumulate(sizes)]
        self._taken = 0
        self._parts: list[Part] = []
        self._settled_count = 0
        self.future = future
        """Of the offsets of all values, in their order."""
        self.row_bytes_max = max(sizes, default=0)
        if not self._rows:
            self.future.set_result([])

    @property
    def next_size(self) -> int:
        """Bytes of the next row; 0 when all are taken."""
        if self._taken == len(self._rows):
            return 0
        return self._ends[self._taken + 1] - self._ends[self._taken]

    def take(self, records_max: int, bytes_max: int) -> tuple[Sequence[Row | bytes], int, Part]:
        """Return the next rows, at least one, the bytes they take, and their part."""
        start, before = self._taken, self._ends[self._taken]
        last = min(start + records_max, len(self._rows))
        end = bisect_right(self._ends, before + bytes_max, start + 2, last + 1) - 1
        self._taken = end
        part = Part(self, end - start)
        self._parts.append(part)
        return self._rows[start:end], self._ends[end] - before, part

    def refuse_rest(self, refusal: Refused) -> None:
        """Fail the rows that were not taken."""
        _, _, part = self.take(len(self._rows), self._ends[-1])
        part.fail(refusal)

    def see_settled(self) -> None:
        """Settle the future with the last part."""
        self._settled_count += 1
        if self._settled_count == len(self._parts) and not self.next_size:
            # They know the bulk: to let go of them spares the garbage collector a circle.
            parts, self._parts = self._parts, []
            if not self.future.done():
                self._conclude(parts)

    def _conclude(self, parts: list[Part]) -> None:
        outcomes = [part.outcome for part in parts if part.outcome is not None]
        offsets = [outcome for outcome in outcomes if isinstance(outcome, range)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, CuteError)]
        if not failures:
            self.future.set_result([*chain.from_iterable(offsets)])
        elif not offsets and len({isinstance(failure, Refused) for failure in failures}) == 1:
            self.future.set_exception(failures[0])
        else:
            counts = [part.count for part in parts]
            self.future.set_exception(MixedOutcome([*zip(counts, outcomes, strict=True)]))


def listed_values(values: Iterable[Record | bytes | str]) -> list[Record | bytes | str]:
    """Raises TypeError for a single value: a str would be sent letter by letter."""
    if isinstance(values, str | bytes | bytearray | memoryview | Record):
        raise TypeError(f"values: an iterable of values is wanted, not {type(values).__name__}")
    return [*values]


def _rows_and_sizes(
    items: list[Record | bytes | str],
) -> tuple[Sequence[Row | bytes], list[int]]:
    if set(map(type, items)) == {bytes}:
        bare: list[bytes] = items  # type: ignore[assignment]  # what the line above has found
        sizes = [len(value) + BARE_ROW_BYTES for value in bare]
        return bare, sizes
    rows = [row_of(record) for record in records_of(items)] if items else []
    return rows, [row_size(row) for row in rows]
