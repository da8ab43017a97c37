from __future__ import annotations

import json

from support.command import cute


async def test_seeds_are_counted_by_mode() -> None:
    done = await cute("sim", "--seeds", "2", "--mode", "calm", "--jobs", "1", "--json")
    assert done.code == 0
    calm = json.loads(done.stdout)["modes"]["calm"]
    assert calm["seeds"] == 2
    assert calm["acknowledged"] > 0
    assert calm["violations"] == []


async def test_a_trace_is_the_same_every_time() -> None:
    first, second = [
        await cute("sim", "--mode", "calm", "--seed", "5", "--trace", PYTHONHASHSEED=seed)
        for seed in ("1", "2")
    ]
    assert first.code == 0
    assert first.stdout == second.stdout
    assert b"--- trace hash" in first.stdout


async def test_a_trace_needs_a_seed() -> None:
    done = await cute("sim", "--trace")
    assert done.code == 2
    assert "--seed" in done.stderr
