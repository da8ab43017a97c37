"""`cute up`: a local cluster of real node processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

import click

from .connect import on_loop
from .local_cluster import NodePlace, NodeProcess, check_ports, leader_of, start_node
from .output import print_json

PORT_MAX = 65_535
HTTP_PORT, RAFT_PORT = 8100, 9100
BLOCK = 20
"""With the default ports taken, the next ones tried are so much higher."""
BLOCKS_MAX = 40


@click.command(epilog="Example: cute up --nodes 3 --data ./cute-data")
@click.option("--nodes", "node_count", type=click.IntRange(1, 15), default=3, show_default=True)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    default="./cute-data",
    show_default=True,
    help="A folder per node is kept in it, with data and log.",
)
@click.option(
    "--http-port",
    type=click.IntRange(1, PORT_MAX - 15),
    help=f"Node i, from 1, answers HTTP on this port + i.  [default: {HTTP_PORT}, or a free one]",
)
@click.option(
    "--raft-port",
    type=click.IntRange(1, PORT_MAX - 15),
    help=f"Node i, from 1, hears peers on this port + i.  [default: {RAFT_PORT}, or a free one]",
)
@click.option("as_json", "--json", is_flag=True, help="Print the JSON line only.")
@on_loop
async def up(
    node_count: int, data: str, http_port: int | None, raft_port: int | None, as_json: bool
) -> int:
    """Run a local cluster until interrupted; a second `cute up` on the same data goes on.

    Prints the URLs and, once there is a leader, one JSON line with "ready": true.
    """
    places, claim = _find_places(node_count, data, http_port, raft_port)
    stopping = asyncio.Event()
    nodes: list[NodeProcess] = []
    _on_signals(stopping, nodes)
    try:
        for place in places:
            node = await start_node(place, places)
            nodes.append(node)
        if not as_json:
            for place in places:
                print(f"{place.id} {place.http}", flush=True)
        return await _watch(nodes, stopping)
    finally:
        for node in nodes:
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.process.wait() for node in nodes))
        claim.close()


def _find_places(
    node_count: int, data: str, http_port: int | None, raft_port: int | None
) -> tuple[list[NodePlace], socket.socket]:
    """Return the places asked for; without a wish, the first block of ports that is free.

    The socket claims the places against other `cute up` until it is closed. Raises
    click.ClickException that names a port in use.
    """
    if http_port is not None or raft_port is not None:
        places = _places(node_count, data, http_port or HTTP_PORT, raft_port or RAFT_PORT)
        return places, _claim(places)
    for shift in range(0, BLOCK * BLOCKS_MAX, BLOCK):
        places = _places(node_count, data, HTTP_PORT + shift, RAFT_PORT + shift)
        with contextlib.suppress(click.ClickException):
            return places, _claim(places)
    raise click.ClickException("no free ports; choose some with --http-port and --raft-port")


def _claim(places: Sequence[NodePlace]) -> socket.socket:
    """Make sure that nobody has the ports, nor is about to start nodes on them."""
    claim = socket.socket(socket.AF_UNIX)
    port = places[0].http_port
    try:
        claim.bind(f"\0cute-up-{port}")  # an abstract name: gone with the process, however it ends
        check_ports(places)
    except OSError as error:
        claim.close()
        raise click.ClickException(
            f"port {port} is claimed by another cute up; choose others with --http-port"
        ) from error
    except click.ClickException:
        claim.close()
        raise
    return claim


def _places(node_count: int, data: str, http_port: int, raft_port: int) -> list[NodePlace]:
    folder = os.path.abspath(data)
    return [
        NodePlace(f"n{i}", http_port + i, raft_port + i, os.path.join(folder, f"n{i}"))
        for i in range(1, node_count + 1)
    ]


def _on_signals(stopping: asyncio.Event, nodes: Sequence[NodeProcess]) -> None:
    """Let the first SIGINT or SIGTERM stop the nodes in order, a second one kill them."""

    def stop() -> None:
        number = signal.SIGKILL if stopping.is_set() else signal.SIGTERM
        stopping.set()
        for node in nodes:
            node.signal(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


async def _watch(nodes: Sequence[NodeProcess], stopping: asyncio.Event) -> int:
    """Tell when the cluster is ready and when a node ends; return the exit code after the last.

    That is 0 if all nodes ended well because they were told to.
    """
    ready = asyncio.create_task(_print_ready(nodes))
    try:
        ends = [asyncio.create_task(_tell_end(node, stopping)) for node in nodes]
        are_well = await asyncio.gather(*ends)
    finally:
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
    return 0 if stopping.is_set() and all(are_well) else 1


async def _tell_end(node: NodeProcess, stopping: asyncio.Event) -> bool:
    """Wait for the node's end; return whether it went well, else say how it ended."""
    told = await node.ended()
    if stopping.is_set() and node.process.returncode == 0:
        return True
    click.echo(f"cute: {told}; see {node.place.log_path}", err=True)
    return False


async def _print_ready(nodes: Sequence[NodeProcess]) -> None:
    leader = await leader_of(nodes)
    print_json(
        {
            "ready": True,
            "leader": leader,
            "nodes": [
                {
                    "id": node.place.id,
                    "http": node.place.http,
                    "raft": node.place.raft,
                    "pid": node.process.pid,
                    "data": node.place.data,
                }
                for node in nodes
            ],
        }
    )
