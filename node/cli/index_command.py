"""`cute index`: secondary indexes of a stream."""

from __future__ import annotations

from dataclasses import asdict

import click

from ...client import IndexInfo
from .connect import connected, json_option, on_loop, server_option
from .output import print_json, print_table


@click.group(epilog="Example: cute index create orders by-user value:/user")
def index() -> None:
    """Create, list and remove secondary indexes of a stream."""


@index.command(epilog="Example: cute index create orders by-user value:/user")
@click.argument("stream")
@click.argument("name")
@click.argument("on", metavar="key|header:NAME|value:/POINTER")
@click.option(
    "--kind",
    type=click.Choice(["btree", "bloom"]),
    default="btree",
    show_default=True,
    help="btree: equality, ranges, prefixes; bloom: equality, small, skips segments.",
)
@server_option
@json_option
@on_loop
async def create(
    stream: str, name: str, on: str, kind: str, server: str | None, as_json: bool
) -> None:
    """Give STREAM the index NAME, or build it anew with another definition."""
    async with connected(server) as client:
        _show([await client.create_index(stream, name, on, kind=kind)], as_json=as_json)


@index.command(epilog="Example: cute index ls orders --json")
@click.argument("stream")
@server_option
@json_option
@on_loop
async def ls(stream: str, server: str | None, as_json: bool) -> None:
    """List the indexes of STREAM, with how much of it they cover on the node asked."""
    async with connected(server) as client:
        found = await client.indexes(stream)
    if as_json:
        print_json({"indexes": [asdict(each) for each in found]})
    else:
        _show(found, as_json=False)


@index.command(epilog="Example: cute index rm orders by-user")
@click.argument("stream")
@click.argument("name")
@server_option
@json_option
@on_loop
async def rm(stream: str, name: str, server: str | None, as_json: bool) -> None:
    """Remove the index NAME of STREAM."""
    async with connected(server) as client:
        await client.drop_index(stream, name)
    if as_json:
        print_json({"stream": stream, "name": name, "deleted": True})
    else:
        print(f"{name} deleted")


def _show(indexes: list[IndexInfo], *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(indexes[0]))
        return
    rows = [(each.name, each.kind, each.on, each.state, f"{each.coverage:.4f}") for each in indexes]
    print_table(("NAME", "KIND", "ON", "STATE", "COVERAGE"), rows)
