"""The terms of a log's entries as runs of (first index, term): terms change with leaders only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class TermRuns:
    """Knows the term at every index from a first one on; never empty.

    The caller guards the upper end: an index behind the last entry gets the last entry's term.
    """

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._terms: list[int] = []
        for first, term in runs:
            self._firsts.append(first)
            self._terms.append(term)
        if not self._firsts:
            raise ValueError("a log has a term at its start")

    @property
    def last_term(self) -> int:
        return self._terms[-1]

    def append(self, index: int, term: int) -> None:
        if term != self._terms[-1]:
            self._firsts.append(index)
            self._terms.append(term)

    def truncate(self, from_index: int) -> None:
        """Forget the runs that begin at `from_index` or above, but never the first one."""
        while len(self._firsts) > 1 and self._firsts[-1] >= from_index:
            del self._firsts[-1], self._terms[-1]

    def forget_before(self, index: int) -> None:
        """Forget the runs that end before `index`."""
        count = bisect_right(self._firsts, index) - 1
        if count > 0:
            del self._firsts[:count], self._terms[:count]

    def term_at(self, index: int) -> int:
        place = bisect_right(self._firsts, index) - 1
        if place < 0:
            raise ValueError(f"the term at index {index} is no longer known")
        return self._terms[place]

    def runs(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._firsts, self._terms, strict=True))
