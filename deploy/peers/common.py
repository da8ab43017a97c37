"""What the peers' modules share: processes, and batches under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Protocol

from processes import free_ports
from systems import PYTHON

from cute_logger.node.cli.bench.target import Acknowledged, Sender

STOP_S = 20.0


def worker_of(name: str) -> tuple[str, ...]:
    return (sys.executable, str(Path(__file__).with_name("worker.py")), name)


def values_in(batch_bytes: int, value_bytes: int, values_max: int) -> int:
    return max(1, min(values_max, batch_bytes // value_bytes))


class Processes:
    """Named processes, each with whatever children it starts, in a session of its own."""

    def __init__(self) -> None:
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(variables or {})},
                cwd=log.parent,
                start_new_session=True,
            )

    def pids(self, *names: str) -> list[int]:
        """Return the living processes of those named, or of all."""
        sessions = {self._started[name].pid for name in names or self._started}
        return [pid for pid, session in _sessions() if session in sessions]

    async def kill(self, name: str) -> None:
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._started[name].wait)

    async def stop(self) -> None:
        """Ask all to end; kill those that do not."""
        for process in self._started.values():
            process.terminate()
        for name, process in self._started.items():
            try:
                await asyncio.to_thread(process.wait, STOP_S)
            except subprocess.TimeoutExpired:
                await self.kill(name)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class ThreeNodes:
    """A system of three nodes: `_start_node` starts one of them, by its number."""

    ports_count: ClassVar[int] = 6
    """Of all nodes; the first three are those that clients know."""
    settle_s: ClassVar[float] = 5.0
    """How long replicas need to be current after a node's start."""
    client: str = PYTHON

    def __init__(self) -> None:
        self._processes = Processes()
        self._ports: list[int] = []
        self._folder = Path()
        self._killed: int | None = None

    def _prepare(self) -> None:
        """Make what all nodes need before the first one starts."""

    def _start_node(self, i: int) -> None:
        raise NotImplementedError

    @property
    def servers(self) -> list[str]:
        """Where clients connect."""
        return [f"127.0.0.1:{port}" for port in self._ports[:3]]

    @property
    def pids(self) -> list[int]:
        return self._processes.pids()

    async def start(self, folder: Path) -> None:
        self._ports = free_ports(self.ports_count)
        self._folder = folder
        self._prepare()
        for i in range(3):
            self._start_node(i)

    async def _kill(self, i: int) -> None:
        self._killed = i
        await self._processes.kill(f"n{i}")

    async def heal(self) -> None:
        if self._killed is not None:
            self._start_node(self._killed)
            self._killed = None
        await asyncio.sleep(self.settle_s)

    async def stop(self) -> None:
        await self._processes.stop()


def _sessions() -> list[tuple[int, int]]:
    """Every living process with its session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found.append((int(entry), int(fields[3])))
    return found


class AppendMany(Protocol):
    async def append_many(self, stream: str, values: Sequence[bytes]) -> None:
        """Return when all values are acknowledged."""


class _BatchSender:
    def __init__(self, target: AppendMany, stream: str, in_flight: int) -> None:
        self._target = target
        self._stream = stream
        self._room = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, values: Sequence[bytes], acknowledged: Acknowledged) -> None:
        await self._room.acquire()
        task = asyncio.create_task(self._append(values, acknowledged))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, values: Sequence[bytes], acknowledged: Acknowledged) -> None:
        try:
            await self._target.append_many(self._stream, values)
        except Exception as failure:  # in the words of whatever client it is
            acknowledged(failure)
        else:
            acknowledged(None)
        finally:
            self._room.release()

    async def finish(self) -> None:
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def batches(target: AppendMany, stream: str, in_flight: int) -> AsyncIterator[Sender]:
    """Several calls of `append_many` under way at a time."""
    sender = _BatchSender(target, stream, in_flight)
    try:
        yield sender
    finally:
        await sender.finish()
