"""`cute up`: a local cluster of real node processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import click

from .connect import on_loop
from .local_cluster import NodePlace, NodeProcess, check_ports, leader_of, start_node
from .output import print_json

PORT_MAX = 65_535


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
    default=8100,
    show_default=True,
    help="Node i, from 1, answers HTTP on this port + i.",
)
@click.option(
    "--raft-port",
    type=click.IntRange(1, PORT_MAX - 15),
    default=9100,
    show_default=True,
    help="Node i, from 1, talks to its peers on this port + i.",
)
@click.option("as_json", "--json", is_flag=True, help="Print the JSON line only.")
@on_loop
async def up(node_count: int, data: str, http_port: int, raft_port: int, as_json: bool) -> int:
    """Run a local cluster until interrupted; a second `cute up` on the same data goes on.

    Prints the URLs and, once there is a leader, one JSON line with "ready": true.
    """
    places = _places(node_count, data, http_port, raft_port)
    check_ports(places)
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
