"""`cute group`: consumer groups, their offsets and leases."""

from __future__ import annotations

from dataclasses import asdict

import click

from ...client import GroupInfo
from .connect import connected, json_option, on_loop, server_option
from .output import print_json, print_table


@click.group(epilog="Example: cute group ls")
def group() -> None:
    """List and show consumer groups, commit offsets, remove groups."""


@group.command(epilog="Example: cute group ls --json")
@server_option
@json_option
@on_loop
async def ls(server: str | None, as_json: bool) -> None:
    """List all groups with their position in each stream."""
    async with connected(server) as client:
        groups = await client.groups()
    if as_json:
        print_json({"groups": [asdict(each) for each in groups]})
    else:
        _print_positions(groups)


@group.command(epilog="Example: cute group info billing")
@click.argument("name")
@server_option
@json_option
@on_loop
async def info(name: str, server: str | None, as_json: bool) -> None:
    """Show the group NAME: offset, lag and lease in each of its streams."""
    async with connected(server) as client:
        found = await client.group(name)
    if as_json:
        print_json(asdict(found))
    else:
        _print_positions([found])


@group.command(epilog="Example: cute group commit billing orders 0")
@click.argument("name")
@click.argument("stream")
@click.argument("offset", type=click.IntRange(min=0))
@click.option("--lease", type=click.IntRange(min=0), help="The number of a lease that is held.")
@server_option
@json_option
@on_loop
async def commit(
    name: str, stream: str, offset: int, lease: int | None, server: str | None, as_json: bool
) -> None:
    """Set where the group NAME goes on in STREAM; back, too, while nobody holds the lease."""
    async with connected(server) as client:
        receipt = await client.commit_offset(name, stream, offset, lease=lease)
    if as_json:
        print_json(asdict(receipt))
    else:
        print(f"{name} goes on at offset {receipt.offset} of {stream}, {receipt.lag} behind")


@group.command(epilog="Example: cute group rm billing")
@click.argument("name")
@server_option
@json_option
@on_loop
async def rm(name: str, server: str | None, as_json: bool) -> None:
    """Remove the group NAME with its committed offsets."""
    async with connected(server) as client:
        await client.delete_group(name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        print(f"{name} deleted")


def _print_positions(groups: list[GroupInfo]) -> None:
    rows = [
        (
            each.name,
            position.stream,
            position.offset,
            position.high_watermark,
            position.lag,
            position.lease.member if position.lease is not None else None,
            position.lease.expires_in_ms if position.lease is not None else None,
        )
        for each in groups
        for position in each.streams
    ]
    columns = ("GROUP", "STREAM", "OFFSET", "HIGH WATERMARK", "LAG", "MEMBER", "EXPIRES IN MS")
    print_table(columns, rows)
