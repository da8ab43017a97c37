"""`cute search` and `cute get`: records by value, and the newest one of a key."""

from __future__ import annotations

import sys
from contextlib import aclosing

import click

from .connect import connected, on_loop, server_option
from .read_command import FORMATS, Format, consistency_option, format_option, json_option


@click.command(epilog="Example: cute search orders by-user --eq alice --desc --max 10")
@click.argument("stream")
@click.argument("index")
@click.option("--eq", help="Records with this value, by offset.")
@click.option("--ge", help="Records with this value or a larger one, by value.")
@click.option("--lt", help="Records with a smaller value, by value.")
@click.option("--prefix", help="Records with a text that begins like this, by value.")
@click.option("is_descending", "--desc", is_flag=True, help="Newest first, or largest first.")
@click.option("count_max", "--max", type=click.IntRange(min=0), help="At most this many records.")
@consistency_option
@format_option
@json_option
@server_option
@on_loop
async def search(
    stream: str,
    index: str,
    eq: str | None,
    ge: str | None,
    lt: str | None,
    prefix: str | None,
    is_descending: bool,
    count_max: int | None,
    consistency: str,
    form: Format,
    as_json: bool,
    server: str | None,
) -> None:
    """Print the records of STREAM that INDEX finds.

    On a value: index a term is a number, true, false or null if it says so in JSON; '"5"' is the
    text 5.
    """
    if eq is ge is lt is prefix is None:
        raise click.UsageError("--eq is wanted, or --ge, --lt or --prefix")
    render = FORMATS["json" if as_json else form]
    async with connected(server) as client:
        pages = client.search_pages(
            stream,
            index,
            eq=eq,
            ge=ge,
            lt=lt,
            prefix=prefix,
            order="desc" if is_descending else "asc",
            limit=min(1000, count_max or 1000),
            consistency=consistency,
        )
        left = count_max
        async with aclosing(pages):
            while left != 0 and (page := await anext(pages, None)):
                records = page.records if left is None else page.records[:left]
                left = None if left is None else left - len(records)
                sys.stdout.buffer.write(render(records))
    sys.stdout.buffer.flush()


@click.command(epilog="Example: cute get users alice --as-of 1000")
@click.argument("stream")
@click.argument("key")
@click.option(
    "--as-of", metavar="OFFSET", type=click.IntRange(min=0), help="The newest at or below it."
)
@consistency_option
@format_option
@json_option
@server_option
@on_loop
async def get(
    stream: str,
    key: str,
    as_of: int | None,
    consistency: str,
    form: Format,
    as_json: bool,
    server: str | None,
) -> None:
    """Print the newest record of KEY in STREAM; fails if there is none, or it is a tombstone."""
    async with connected(server) as client:
        record = await client.get(stream, key, as_of=as_of, consistency=consistency)
    sys.stdout.buffer.write(FORMATS["json" if as_json else form]([record]))
    sys.stdout.buffer.flush()
