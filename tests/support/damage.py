"""Bits that change on the disk of one stopped node.

It repairs itself: it starts, becomes ready and serves everything right, without an operator. Either
it had no need of the damaged bytes, or the others made them good.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp

from .arena import Arena
from .load import Load, served_by

REPAIR_S: Final = 30.0

Damage: TypeAlias = Callable[[Arena, Load, str], Awaitable[None]]


def flip_random_bit(folder: Path, pattern: str) -> None:
    """Change one bit of one of the files that hold anything."""
    path = random.choice([each for each in folder.rglob(pattern) if each.stat().st_size])
    position = random.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0] ^ 1 << random.randrange(8)
        file.seek(position)
        file.write(bytes([byte]))


def _newest(data: Path, pattern: str) -> Path:
    """The newest of the folders: the stream of the load is the last that was made."""
    return max(data.glob(pattern)) if pattern else data


async def flip_bit(arena: Arena, load: Load, name: str, *, folder: str, pattern: str) -> None:
    """Flip a bit of the stopped node `name` and see it repaired."""
    flip_random_bit(_newest(arena.cluster.data_of(name), folder), pattern)
    logged = len(arena.cluster.log_of(name))
    await _start_and_serve(arena, load, name)
    was_set_aside = "sets it aside" in arena.cluster.log_of(name)[logged:]
    load.remarks.append("fetched anew" if was_set_aside else "served all")


async def tear_log(arena: Arena, load: Load, name: str) -> None:
    """Garbage behind the newest log file's end, as of a write that was under way."""
    newest = max((arena.cluster.data_of(name) / "wal").glob("*.wal"))
    with newest.open("ab") as file:
        file.write(random.randbytes(random.randrange(1, 4096)))
    await _start_and_serve(arena, load, name)


async def _start_and_serve(arena: Arena, load: Load, name: str) -> None:
    """The node serves all that is acknowledged, byte for byte."""
    arena.cluster.start(name)
    assert await _is_ready(arena, name), f"{name} ended\n{arena.cluster.log_of(name)[-2000:]}"
    others = [url for url in arena.cluster.urls if url != arena.cluster.url(name)]
    served = await served_by(arena.cluster.url(name), load.stream)
    _check_same(name, served, await served_by(others[0], load.stream))


def _check_same(name: str, served: list[Any], right: list[Any]) -> None:
    """The load goes on: what was read later is longer."""
    assert len(served) <= len(right), f"{name} serves records that nobody else has"
    wrong = [pair for pair in zip(served, right, strict=False) if pair[0] != pair[1]]
    assert not wrong, f"{name} serves wrong bytes: {wrong[0]}"


async def _is_ready(arena: Arena, name: str) -> bool:
    """Wait for the node to be ready; False if its process ends instead."""
    async with (
        asyncio.timeout(REPAIR_S),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
    ):
        while arena.is_running(name):
            with contextlib.suppress(OSError, aiohttp.ClientError):
                async with session.get(f"{arena.cluster.url(name)}/readyz") as answer:
                    if answer.status == 200:
                        return True
            await asyncio.sleep(0.02)
    return False


DAMAGES: Final[dict[str, Damage]] = {
    "log": partial(flip_bit, folder="wal", pattern="*.wal"),
    "log's end": tear_log,
    "segment": partial(flip_bit, folder="streams/*", pattern="*.log"),
    "index": partial(flip_bit, folder="streams/*", pattern="*.index"),
    "checkpoint": partial(flip_bit, folder="", pattern="checkpoint"),
    "mark": partial(flip_bit, folder="", pattern="node"),
    "format": partial(flip_bit, folder="", pattern="format"),
}
