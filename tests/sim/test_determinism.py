"""One seed is one run, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from cute_logger.replication.sim.modes import MODES
from cute_logger.replication.sim.runner import simulate

SHORT = replace(MODES["evil"], duration_s=8.0)

PROGRAM = """
from dataclasses import replace
from cute_logger.replication.sim.modes import MODES
from cute_logger.replication.sim.runner import simulate
print(simulate(replace(MODES["evil"], duration_s=8.0), 5).trace_hash)
"""


def test_a_seed_gives_the_same_run_again() -> None:
    first, second = simulate(SHORT, 5), simulate(SHORT, 5)
    assert first == second


def test_another_seed_gives_another_run() -> None:
    assert simulate(SHORT, 5).trace_hash != simulate(SHORT, 6).trace_hash


def test_another_process_with_another_hash_seed_gives_the_same_run() -> None:
    here = simulate(SHORT, 5).trace_hash
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert there.stdout.strip() == here


def test_what_was_replaced_is_put_back() -> None:
    from pysyncobj import syncobj

    before = syncobj.monotonicTime, syncobj.random
    simulate(SHORT, 1)
    assert (syncobj.monotonicTime, syncobj.random) == before
