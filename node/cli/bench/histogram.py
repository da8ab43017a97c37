"""Durations, counted so finely that percentiles hold to half a percent, and addable.

Bucket i holds what took from 1.01**i up to 1.01**(i+1) microseconds; the largest is kept as it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

_GROWTH = 1.01
_SCALE = 1 / math.log(_GROWTH)


class Histogram:
    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum_s = 0.0
        self._max_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; what is below a microsecond, negative too, counts as one."""
        micros = max(seconds * 1e6, 1.0)
        self._counts[int(math.log(micros) * _SCALE)] += 1
        self._sum_s += seconds
        self._max_s = max(self._max_s, seconds)

    def merge(self, other: Histogram) -> None:
        self._counts.update(other._counts)
        self._sum_s += other._sum_s
        self._max_s = max(self._max_s, other._max_s)

    @property
    def count(self) -> int:
        return self._counts.total()

    @property
    def max_s(self) -> float:
        return self._max_s

    @property
    def mean_s(self) -> float:
        return self._sum_s / self.count if self.count else 0.0

    def percentile_s(self, percent: float) -> float:
        """Return the smallest duration that `percent` of all do not pass; 0 if there are none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return min(math.exp((bucket + 0.5) / _SCALE) / 1e6, self._max_s)
        return 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"counts": sorted(self._counts.items()), "sum_s": self._sum_s, "max_s": self._max_s}

    @classmethod
    def from_dict(cls, shape: dict[str, Any]) -> Self:
        histogram = cls()
        histogram._counts = Counter(dict(shape["counts"]))
        histogram._sum_s = shape["sum_s"]
        histogram._max_s = shape["max_s"]
        return histogram


def merged(histograms: Iterable[Histogram]) -> Histogram:
    whole = Histogram()
    for histogram in histograms:
        whole.merge(histogram)
    return whole
