"""Nothing acknowledged is lost, moved or doubled, whatever is done to the nodes."""

from __future__ import annotations

import pytest

from support.arena import Arena
from support.faults import FAULTS, Fault
from support.tracing import why_not as why_no_tracing

GAP_S_MAX = 15.0
"""Generous, for a machine with other work; `deploy/chaos.py` measures."""


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_every_acknowledged_record_survives(arena: Arena, fault: Fault) -> None:
    if fault.needs_tracing and (reason := why_no_tracing()):
        pytest.skip(reason)
    async with arena.loaded() as load:
        await fault.strike(arena, load)
    verdict = await arena.verdict(load)
    assert verdict.acknowledged > 100
    assert verdict.faults == {}
    gap_s = load.first_after_strike_s() if fault.takes_all else load.gap_s()
    assert gap_s < GAP_S_MAX
