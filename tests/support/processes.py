"""A cluster of real `cute node` processes on loopback, to be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .ports import free_ports

CUTE = [sys.executable, "-P", "-m", "cute_logger.node.cli.main"]
START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node runs, if that is not here."""

    host: str
    data: Path
    """Holds the data folder."""
    prefix: tuple[str, ...]
    """The command that runs the node's command there; it must exec it, so that the pid is its."""


class ProcessCluster:
    def __init__(
        self,
        folder: Path,
        count: int = 3,
        settings: tuple[str, ...] = (),
        sites: Mapping[str, Site] | None = None,
    ) -> None:
        ports = free_ports(2 * count)
        names = [f"n{i}" for i in range(1, count + 1)]
        self.http = dict(zip(names, ports[:count], strict=True))
        self.raft = dict(zip(names, ports[count:], strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = folder
        self.founders = names
        """Whom the settings name; the others join."""
        self._settings = settings
        here = Site("127.0.0.1", folder, ())
        self.sites = {name: (sites or {}).get(name, here) for name in names}

    @property
    def urls(self) -> list[str]:
        return [self.url(name) for name in self.http]

    def url(self, name: str) -> str:
        return f"http://{self.sites[name].host}:{self.http[name]}"

    def data_of(self, name: str) -> Path:
        """The node's data folder."""
        return self.sites[name].data / name

    def start(self, *names: str) -> None:
        """Start the nodes named, or all; returns at once."""
        for name in names or self.http:
            known = dict.fromkeys([*self.founders, name])
            members = ",".join(f"{n}={self.sites[n].host}:{self.raft[n]}" for n in known)
            host = self.sites[name].host
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [
                        *self.sites[name].prefix,
                        *CUTE,
                        *("node", "--id", name, "--data", str(self.data_of(name))),
                        *("--http", f"{host}:{self.http[name]}"),
                        *("--raft", f"{host}:{self.raft[name]}"),
                        *("--cluster", members, *self._settings),
                        *(() if name in self.founders else ("--join",)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def signal(self, number: signal.Signals, *names: str) -> None:
        """Send the signal to the nodes named at (nearly) the same time."""
        for name in names or self.http:
            self.processes[name].send_signal(number)

    def kill(self, *names: str) -> None:
        """kill -9, and wait until they are gone."""
        self.signal(signal.SIGKILL, *names)
        for name in names or self.http:
            self.processes[name].wait(10)

    def stop(self) -> None:
        """End whatever still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def rss_bytes(self, name: str) -> int:
        with open(f"/proc/{self.processes[name].pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def leader(self, deadline_s: float = START_TIMEOUT_S) -> str:
        """The leader all living nodes agree on, once all of them have caught up."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            try:
                async with asyncio.timeout(deadline_s):
                    while (leader := await self._agreed_leader(session)) is None:
                        await asyncio.sleep(0.02)
                    return leader
            except TimeoutError:
                logs = "\n".join(f"{name}:\n{self.log_of(name)[-2000:]}" for name in self.http)
                pytest.fail(f"no leader within {deadline_s} s\n{logs}")

    async def _agreed_leader(self, session: aiohttp.ClientSession) -> str | None:
        leaders = set()
        for name, process in self.processes.items():
            if process.poll() is not None:
                continue
            try:
                async with session.get(f"{self.url(name)}/readyz") as ready:
                    if ready.status != 200:
                        return None
                async with session.get(f"{self.url(name)}/v1/cluster") as answer:
                    leaders.add((await answer.json())["leader"])
            except (OSError, TimeoutError, aiohttp.ClientError):
                return None
        leader = leaders.pop() if len(leaders) == 1 else None
        return leader if leader and self.processes[leader].poll() is None else None


async def http(method: str, url: str, **arguments: Any) -> tuple[int, Any, Any]:
    """Status, body (decoded JSON where it is some) and headers of one request."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.request(method, url, **arguments) as answer,
    ):
        body = await answer.json(content_type=None) if "json" in answer.content_type else None
        return answer.status, body, answer.headers
