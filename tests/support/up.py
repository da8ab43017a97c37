"""A cluster that `cute up` runs: real node processes on free ports."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command import start_cute
from support.ports import is_free

READY_S = 60


@dataclass(slots=True)
class Up:
    process: asyncio.subprocess.Process
    lines: list[str]
    """What it printed before it was ready."""
    ready: dict[str, Any]
    """The JSON line."""

    @property
    def urls(self) -> list[str]:
        return [node["http"] for node in self.ready["nodes"]]

    @property
    def server(self) -> str:
        return ",".join(self.urls)

    def node(self, node_id: str) -> dict[str, Any]:
        return next(node for node in self.ready["nodes"] if node["id"] == node_id)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Let the command end and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def running_up(data: Path, *, nodes: int = 3) -> AsyncIterator[Up]:
    base = free_port_range(nodes)
    ports = ("--http-port", str(base), "--raft-port", str(base + nodes))
    process = await start_cute("up", "--nodes", str(nodes), "--data", str(data), *ports)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(READY_S):
            while not (line := (await process.stdout.readline()).decode()).startswith("{"):
                assert line, "it ended before it was ready"
                lines.append(line)
        up = Up(process, lines, json.loads(line))
        yield up
        await up.stop()
    finally:
        if process.returncode is None:
            # The second signal makes it kill its nodes.
            process.terminate()
            process.terminate()
            await process.wait()


def free_port_range(nodes: int) -> int:
    """Return a port with twice as many free ones as there are nodes right behind it."""
    for _ in range(100):
        base = random.randrange(10_000, 17_900)
        if all(is_free(base + i) for i in range(1, 2 * nodes + 1)):
            return base
    raise AssertionError("no free ports in a row")
