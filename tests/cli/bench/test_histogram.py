from __future__ import annotations

import json
import random

import pytest

from cute_logger.node.cli.bench.histogram import Histogram, merged


def counted(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return histogram


def test_percentiles_are_those_of_the_sorted_durations_to_half_a_percent() -> None:
    durations = [random.Random(7).lognormvariate(-6, 1.5) for _ in range(5000)]
    histogram = counted(durations)
    ordered = sorted(durations)
    for percent in (1, 50, 90, 99, 99.9):
        exact = ordered[-(-len(ordered) * int(percent * 10) // 1000) - 1]
        assert histogram.percentile_s(percent) == pytest.approx(exact, rel=0.0051)
    assert histogram.max_s == ordered[-1]
    assert histogram.mean_s == pytest.approx(sum(durations) / 5000)


def test_a_percentile_never_passes_the_largest_duration() -> None:
    assert counted([0.0123456]).percentile_s(50) <= 0.0123456


def test_merging_equals_counting_all_in_one() -> None:
    left, right = counted([0.001, 0.002]), counted([0.5])
    assert merged([left, right]).to_dict() == counted([0.001, 0.002, 0.5]).to_dict()


def test_json_and_back_keeps_everything() -> None:
    histogram = counted([1e-9, 0.003, 75.0])
    shape = json.loads(json.dumps(histogram.to_dict()))
    assert Histogram.from_dict(shape).to_dict() == histogram.to_dict()


def test_without_durations_all_figures_are_zero() -> None:
    assert (Histogram().percentile_s(99), Histogram().mean_s, Histogram().count) == (0.0, 0.0, 0)
