"""`cute cluster`: members, leader and progress; leadership."""

from __future__ import annotations

from dataclasses import asdict

import click

from ...client import ClusterInfo
from .connect import connected, json_option, on_loop, server_option
from .output import print_json, print_table


@click.group(epilog="Example: cute cluster status")
def cluster() -> None:
    """Members, leader and progress; membership; leadership."""


@cluster.command(epilog="Example: cute cluster status --json")
@server_option
@json_option
@on_loop
async def status(server: str | None, as_json: bool) -> None:
    """Show all nodes as the node asked sees them."""
    async with connected(server) as client:
        info = await client.cluster()
    if as_json:
        print_json(asdict(info))
    else:
        _print_status(info)


@cluster.command(epilog="Example: cute cluster transfer n2")
@click.argument("node", required=False)
@server_option
@json_option
@on_loop
async def transfer(node: str | None, server: str | None, as_json: bool) -> None:
    """Hand leadership to NODE, or to whichever follower is best."""
    async with connected(server) as client:
        leader = await client.transfer_leadership(node)
    if as_json:
        print_json({"leader": leader})
    else:
        print(f"{leader} leads")


@cluster.command(epilog="Example: cute cluster add n4 127.0.0.1:9104")
@click.argument("node")
@click.argument("raft", metavar="HOST:PORT")
@click.option("--role", type=click.Choice(["voter", "learner"]), default="voter")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0.1), default=60.0)
@server_option
@json_option
@on_loop
async def add(
    node: str, raft: str, role: str, timeout: float, server: str | None, as_json: bool
) -> None:
    """Add NODE, which listens for the others at HOST:PORT; or move, promote or demote it.

    Start it first, with --join. A voter counts once it has caught up.
    """
    async with connected(server) as client:
        member = await client.add_member(node, raft, role, timeout=timeout)
    if as_json:
        print_json(asdict(member))
    else:
        print(f"{member.id} is a {member.role}")


@cluster.command(epilog="Example: cute cluster remove n2")
@click.argument("node")
@server_option
@json_option
@on_loop
async def remove(node: str, server: str | None, as_json: bool) -> None:
    """Take NODE out of the cluster; then it can be stopped."""
    async with connected(server) as client:
        await client.remove_member(node)
    if as_json:
        print_json({"id": node})
    else:
        print(f"{node} is removed")


def _print_status(info: ClusterInfo) -> None:
    print(f"leader {info.leader or 'none'}, term {info.term}, commit index {info.commit_index}")
    rows = [
        (
            node.id,
            node.state,
            node.role,
            node.http,
            node.match_index,
            None if node.match_index is None else max(0, info.commit_index - node.match_index),
            "yes" if node.connected else "no",
            node.last_seen_ms,
        )
        for node in info.nodes
    ]
    columns = ("ID", "STATE", "ROLE", "HTTP", "MATCH", "LAG", "CONNECTED", "LAST SEEN MS")
    print_table(columns, rows)
