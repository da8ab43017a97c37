"""The simulator notices when a rule that keeps promises is broken.

The bugs are in support/mutations, each with the mode in which the simulator has to see it. What
chance finds too rarely is in test_rules.py and test_snapshot_rules.py. `make mutations` writes the
table of all of them.
"""

from __future__ import annotations

import pytest

from support.mutations import every  # noqa: F401
from support.mutations.registry import MUTATIONS, SEEDS, play


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_simulator_notices_that(name: str) -> None:
    mutation = MUTATIONS[name]
    assert play(mutation), f"{SEEDS} seeds of {mutation.mode_name} passed"
