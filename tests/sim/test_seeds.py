"""Whole clusters under every kind of trouble keep their word."""

from __future__ import annotations

import pytest

from cute_logger.replication.sim.modes import MODES
from cute_logger.replication.sim.runner import simulate

SEEDS = {
    "calm": 2,
    "network": 4,
    "crashes": 4,
    "power": 4,
    "slow": 4,
    "five": 2,
    "rot": 4,
    "folders": 4,
    "evil": 8,
    "members": 6,
    "snapshots": 4,
}
RUNS = [(mode, seed) for mode, count in SEEDS.items() for seed in range(1000, 1000 + count)]


@pytest.mark.parametrize(("mode", "seed"), RUNS, ids=[f"{mode}-{seed}" for mode, seed in RUNS])
def test_nothing_is_violated(mode: str, seed: int) -> None:
    result = simulate(mode, seed)
    report = "\n".join([*map(str, result.violations), *result.lines[-60:]])
    assert not result.violations, report
    assert result.acked > 10, "the cluster did next to nothing"


def test_every_mode_is_played() -> None:
    assert set(SEEDS) == set(MODES)
