"""`cute stream`: create, list, show, alter, trim and remove streams."""

from __future__ import annotations

from dataclasses import asdict

import click

from ...client import StreamInfo
from .connect import connected, json_option, on_loop, server_option
from .output import print_facts, print_json, print_table


@click.group(epilog="Example: cute stream create orders --config retention.ms=7d")
def stream() -> None:
    """Create, list, show, alter, trim and remove streams."""


@stream.command(epilog="Example: cute stream create orders --config retention.ms=7d")
@click.argument("name")
@click.option("settings", "--config", metavar="K=V", multiple=True, help="A setting; repeatable.")
@server_option
@json_option
@on_loop
async def create(name: str, settings: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """Create the stream NAME; fine if it exists with the same settings."""
    config = dict(_setting(text) for text in settings)
    async with connected(server) as client:
        _show(await client.create_stream(name, config), as_json=as_json)


@stream.command(epilog="Example: cute stream ls --json")
@server_option
@json_option
@on_loop
async def ls(server: str | None, as_json: bool) -> None:
    """List all streams."""
    async with connected(server) as client:
        streams = await client.streams()
    if as_json:
        print_json({"streams": [asdict(info) for info in streams]})
        return
    rows = [(s.name, s.log_start_offset, s.high_watermark, s.bytes, s.segments) for s in streams]
    print_table(("NAME", "LOG START", "HIGH WATERMARK", "BYTES", "SEGMENTS"), rows)


@stream.command(epilog="Example: cute stream info orders")
@click.argument("name")
@server_option
@json_option
@on_loop
async def info(name: str, server: str | None, as_json: bool) -> None:
    """Show the stream NAME: its offsets, size and settings."""
    async with connected(server) as client:
        _show(await client.stream(name), as_json=as_json)


@stream.command(epilog="Example: cute stream alter orders --config retention.ms=7d")
@click.argument("name")
@click.option(
    "settings",
    "--config",
    metavar="K=V",
    multiple=True,
    required=True,
    help="A setting; repeatable.",
)
@server_option
@json_option
@on_loop
async def alter(name: str, settings: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """Change settings of the stream NAME; those not named stay."""
    config = dict(_setting(text) for text in settings)
    async with connected(server) as client:
        _show(await client.alter_stream(name, config), as_json=as_json)


@stream.command(epilog="Example: cute stream trim orders --before 1000")
@click.argument("name")
@click.option(
    "--before",
    metavar="OFFSET",
    type=click.IntRange(min=0),
    required=True,
    help="The first record that is kept.",
)
@server_option
@json_option
@on_loop
async def trim(name: str, before: int, server: str | None, as_json: bool) -> None:
    """Remove the records of the stream NAME below an offset, for ever."""
    async with connected(server) as client:
        start = await client.trim(name, before)
    if as_json:
        print_json({"name": name, "log_start_offset": start})
    else:
        print(f"{name} begins at offset {start}")


@stream.command(epilog="Example: cute stream rm orders")
@click.argument("name")
@server_option
@json_option
@on_loop
async def rm(name: str, server: str | None, as_json: bool) -> None:
    """Delete the stream NAME with all its records."""
    async with connected(server) as client:
        await client.delete_stream(name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        print(f"{name} deleted")


def _show(stream: StreamInfo, *, as_json: bool) -> None:
    facts = asdict(stream)
    if as_json:
        print_json(facts)
        return
    config = facts.pop("config")
    print_facts(facts | config)


def _setting(text: str) -> tuple[str, int | str | bool]:
    """Return name and value of `k=v`; whole numbers, true and false are sent as such."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--config: K=V is wanted, not {text!r}")
    if value in ("true", "false"):
        return name, value == "true"
    is_number = value.removeprefix("-").isdecimal() and value.isascii()
    return name, int(value) if is_number else value
