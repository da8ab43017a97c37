"""`cute cluster`: members, leader and progress; leadership."""

from __future__ import annotations

from dataclasses import asdict

import click

from ...client import ClusterInfo
from .connect import connected, json_option, on_loop, server_option
from .output import print_json, print_table


@click.group(epilog="Example: cute cluster status")
def cluster() -> None:
    """Members, leader and progress; leadership."""


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
