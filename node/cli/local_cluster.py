"""Real nodes as child processes on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import BinaryIO

import click

HOST = "127.0.0.1"
POLL_S = 0.05
ANSWER_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where one node listens and keeps its data."""

    id: str
    http_port: int
    raft_port: int
    folder: str

    @property
    def http(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def raft(self) -> str:
        return f"{HOST}:{self.raft_port}"

    @property
    def data(self) -> str:
        """The node's own folder: it refuses one with files it did not write, such as a log."""
        return os.path.join(self.folder, "data")

    @property
    def log_path(self) -> str:
        return os.path.join(self.folder, "node.log")


@dataclass(slots=True)
class NodeProcess:
    place: NodePlace
    process: asyncio.subprocess.Process

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self) -> str:
        """Wait until it has ended and tell how."""
        code = await self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{self.place.id} (pid {self.process.pid}) {how}"


def check_ports(places: Sequence[NodePlace]) -> None:
    """Raise click.ClickException that names the first port in use and its option."""
    for place in places:
        for kind, port in (("http", place.http_port), ("raft", place.raft_port)):
            with socket.socket() as probe:
                # As the node will: what merely lingers after a connection is no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise click.ClickException(
                        f"port {port} ({kind} of {place.id}) cannot be used: {error.strerror}; "
                        f"choose others with --{kind}-port"
                    ) from error


async def start_node(place: NodePlace, places: Sequence[NodePlace]) -> NodeProcess:
    """Start one node; what it prints goes to its log file."""
    command = [sys.executable, "-P", "-m", "cute_logger.node.cli.main", "node"]
    options = {
        "--id": place.id,
        "--data": place.data,
        "--http": f"{HOST}:{place.http_port}",
        "--raft": place.raft,
        "--cluster": ",".join(f"{each.id}={each.raft}" for each in places),
    }
    arguments = [part for option in options.items() for part in option]
    with _opened_log(place) as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A terminal's Ctrl-C is for the parent alone, which then stops the nodes.
            start_new_session=True,
        )
    return NodeProcess(place, process)


def _opened_log(place: NodePlace) -> BinaryIO:
    os.makedirs(place.folder, exist_ok=True)
    return open(place.log_path, "ab")


async def leader_of(nodes: Sequence[NodeProcess]) -> str:
    """Wait until all living nodes agree on a leader and return its id."""
    while True:
        living = [node.place for node in nodes if node.is_alive]
        leaders = set(await asyncio.gather(*(asyncio.to_thread(_leader_by, at) for at in living)))
        if len(leaders) == 1 and (leader := leaders.pop()) is not None:
            return leader
        await asyncio.sleep(POLL_S)


def _leader_by(place: NodePlace) -> str | None:
    """Ask one node who leads; None if it does not know or does not answer.

    By the standard library: importing the product's client takes as long as a node's start, on the
    processors that the nodes are starting on.
    """
    connection = HTTPConnection(HOST, place.http_port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/v1/cluster", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        leader = json.load(answer).get("leader") if answer.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return str(leader) if leader is not None else None
