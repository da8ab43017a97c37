"""A disk that runs full is an operating condition, not a failure."""

from __future__ import annotations

import asyncio
from typing import Any

from support.arena import Arena
from support.disks import MIB
from support.load import served_by
from support.processes import http

LEFT_BYTES = 4 * MIB
"""Below the reserve of the arena's nodes."""
DEADLINE_S = 10.0


async def append(arena: Arena, name: str, stream: str) -> tuple[int, Any]:
    url = f"{arena.cluster.url(name)}/v1/streams/{stream}/records"
    status, answer, _ = await http("POST", url, json={"records": [{"value": "one more"}]})
    return status, answer


async def until_status(arena: Arena, name: str, stream: str, wanted: int) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            status, answer = await append(arena, name, stream)
            if status == wanted:
                return answer
            await asyncio.sleep(0.05)


async def test_full_disks_refuse_appends_serve_reads_and_clear_by_themselves(arena: Arena) -> None:
    async with arena.loaded() as load:
        pass
    before = await served_by(arena.cluster.urls[0], load.stream)
    pids = {name: process.pid for name, process in arena.cluster.processes.items()}

    for disk in arena.disks.values():
        disk.fill(LEFT_BYTES)
    for name in arena.disks:
        problem = await until_status(arena, name, load.stream, 507)
        assert problem["code"] == "disk_full"
        assert problem["side_effect"] == "none"
        assert problem["free_bytes"] >= 0
        served = await served_by(arena.cluster.url(name), load.stream)
        assert served[: len(before)] == before

    for disk in arena.disks.values():
        disk.make_room()
    for name in arena.disks:
        receipt = await until_status(arena, name, load.stream, 200)
        assert receipt["first_offset"] >= len(before)
    assert {name: process.pid for name, process in arena.cluster.processes.items()} == pids
    assert all(arena.is_running(name) for name in arena.disks)
