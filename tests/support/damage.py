"""Bits that change on the disk of one stopped node.

A node with damaged files may refuse to start, naming the file, or refuse to serve what lies in the
damaged place. It may also start and serve everything right: then it had no need of the damaged
bytes, or found them to be an unfinished write, which the others make good. It never serves anything
else. Where it refused, the bit is put back, and the node must start: a refusal changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp

from .arena import Arena
from .load import Load, NotServed, served_by

START_S: Final = 20.0
EXIT_REFUSED: Final = 1

Damage: TypeAlias = Callable[[Arena, Load, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of a file, to be changed."""

    path: Path
    position: int
    mask: int
    around: bytes
    """What was there, from `position` on."""

    @classmethod
    def random(cls, folder: Path, pattern: str) -> Flip:
        """Choose a bit of the files that hold anything."""
        path = random.choice([each for each in folder.rglob(pattern) if each.stat().st_size])
        position = random.randrange(path.stat().st_size)
        with path.open("rb") as file:
            file.seek(position)
            return cls(path, position, 1 << random.randrange(8), file.read(16))

    def make(self) -> None:
        self._write(self._flipped)

    def undo(self) -> None:
        """Put the bit back, unless the file has become another."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self.position)
                if file.read(len(self.around)) == self._flipped:
                    self._write(self.around)

    @property
    def _flipped(self) -> bytes:
        return bytes([self.around[0] ^ self.mask]) + self.around[1:]

    def _write(self, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.position)
            file.write(data)


def _newest(data: Path, pattern: str) -> Path:
    """The newest of the folders: the stream of the load is the last that was made."""
    return max(data.glob(pattern)) if pattern else data


async def flip_bit(arena: Arena, load: Load, name: str, *, folder: str, pattern: str) -> None:
    """Flip a bit of the stopped node `name`, look what it serves, and put the bit back."""
    flip = Flip.random(_newest(arena.cluster.data_of(name), folder), pattern)
    flip.make()
    logged = len(arena.cluster.log_of(name))
    arena.cluster.start(name)
    refused = await _refusal(arena, load, name)
    load.remarks.append(refused or "served all")
    log = arena.cluster.log_of(name)[logged:]
    where = f"{flip.path}, byte {flip.position}"
    assert refused is None or flip.path.name in log, f"{refused}; not in the log: {where}\n{log}"
    if arena.is_running(name):
        arena.cluster.kill(name)
    flip.undo()
    arena.cluster.start(name)


async def flip_index_bit(arena: Arena, load: Load, name: str) -> None:
    """An offset index is made anew from its segment: nothing is refused."""
    Flip.random(_newest(arena.cluster.data_of(name), "streams/*"), "*.index").make()
    arena.cluster.start(name)
    refused = await _refusal(arena, load, name)
    assert refused is None, refused


async def tear_log(arena: Arena, load: Load, name: str) -> None:
    """Garbage behind the newest log file's end, as of a write that was under way."""
    newest = max((arena.cluster.data_of(name) / "wal").glob("*.wal"))
    with newest.open("ab") as file:
        file.write(random.randbytes(random.randrange(1, 4096)))
    arena.cluster.start(name)
    refused = await _refusal(arena, load, name)
    assert refused is None, refused


async def _refusal(arena: Arena, load: Load, name: str) -> str | None:
    """How the node refused; None if it serves all that is acknowledged, byte for byte."""
    if not await _is_ready(arena, name):
        code = arena.cluster.processes[name].returncode
        assert code == EXIT_REFUSED, f"{name} did not start and ended with {code}"
        return "did not start"
    others = [url for url in arena.cluster.urls if url != arena.cluster.url(name)]
    try:
        served = await served_by(arena.cluster.url(name), load.stream)
    except NotServed as error:
        return f"answered {error.status}"
    right = await served_by(others[0], load.stream)
    _check_same(name, served, right)
    return None


def _check_same(name: str, served: list[Any], right: list[Any]) -> None:
    """The load goes on: what was read later is longer."""
    assert len(served) <= len(right), f"{name} serves records that nobody else has"
    wrong = [pair for pair in zip(served, right, strict=False) if pair[0] != pair[1]]
    assert not wrong, f"{name} serves wrong bytes: {wrong[0]}"


async def _is_ready(arena: Arena, name: str) -> bool:
    """Wait for the node to be ready; False if its process ends instead."""
    async with (
        asyncio.timeout(START_S),
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
    "index": flip_index_bit,
    "checkpoint": partial(flip_bit, folder="", pattern="checkpoint"),
}
