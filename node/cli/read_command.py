"""`cute read` and `cute tail`: records to stdout."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Literal

import click

from ...client import AsyncClient, Record
from ...client.wire import json_shape
from .connect import connected, on_loop, server_option
from .output import progress
from .positions import Position, PositionType

Format = Literal["value", "json"]


def _as_values(records: Iterable[Record]) -> bytes:
    return b"".join([(record.value or b"") + b"\n" for record in records])


def _as_json(records: Iterable[Record]) -> bytes:
    lines = [json.dumps(json_shape(record), ensure_ascii=False) for record in records]
    return "".join([line + "\n" for line in lines]).encode()


FORMATS: dict[Format, Callable[[Iterable[Record]], bytes]] = {
    "value": _as_values,
    "json": _as_json,
}

format_option = click.option(
    "form",
    "--format",
    type=click.Choice(["value", "json"]),
    default="value",
    show_default=True,
    help="The value and a newline, or one JSON object per line.",
)
json_option = click.option("as_json", "--json", is_flag=True, help="The same as --format json.")
consistency_option = click.option(
    "--consistency",
    type=click.Choice(["local", "linearizable"]),
    default="local",
    show_default=True,
    help="linearizable shows all that was acknowledged before the command began.",
)
_key_option = click.option("--key", help="Only records with this key.")


@click.command(
    epilog="Examples: cute read orders --from 2026-01-31T12:00:00Z --max 10        "
    "cute read orders --reverse --max 3"
)
@click.argument("stream")
@click.option("start", "--from", type=PositionType(), help="First record; -10: the last ten.")
@click.option("stop", "--to", type=PositionType(), help="Read up to here, exclusive.")
@_key_option
@click.option("count_max", "--max", type=click.IntRange(min=0), help="At most this many records.")
@click.option("is_reverse", "--reverse", is_flag=True, help="The newest of the range first.")
@consistency_option
@format_option
@json_option
@server_option
@on_loop
async def read(
    stream: str,
    start: Position | None,
    stop: Position | None,
    key: str | None,
    count_max: int | None,
    is_reverse: bool,
    consistency: str,
    form: Format,
    as_json: bool,
    server: str | None,
) -> None:
    """Print the records of STREAM, from the oldest up to the end, and stop.

    With --reverse from the end down to the oldest.
    """
    start = start or Position()
    render = FORMATS["json" if as_json else form]
    async with connected(server) as client:
        end = await _end_of(client, stream, stop, consistency)
        pages = client.read_pages(
            stream,
            start.offset,
            end,
            page_records=min(10_000, count_max or 10_000),
            timestamp=start.timestamp,
            key=key,
            consistency=consistency,
            order="desc" if is_reverse else "asc",
        )
        left = count_max
        with progress("read", is_wanted=not sys.stdout.isatty()) as count_more:
            async with aclosing(pages):
                while left != 0 and (page := await anext(pages, None)):
                    records = page.records if left is None else page.records[:left]
                    left = None if left is None else left - len(records)
                    text = render(records)
                    sys.stdout.buffer.write(text)
                    count_more(len(records), len(text))
        sys.stdout.buffer.flush()


@click.command(epilog="Example: cute tail orders --from -10")
@click.argument("stream")
@click.option(
    "start",
    "--from",
    type=PositionType(),
    default="-10",
    show_default=True,
    help="First record; -10: the last ten.",
)
@_key_option
@click.option("skip_gaps", "--skip-gaps", is_flag=True, help="Go on after records were removed.")
@format_option
@json_option
@server_option
@on_loop
async def tail(
    stream: str,
    start: Position,
    key: str | None,
    skip_gaps: bool,
    form: Format,
    as_json: bool,
    server: str | None,
) -> None:
    """Print the records of STREAM as they arrive, until interrupted."""
    render = FORMATS["json" if as_json else form]
    task = asyncio.current_task()
    assert task is not None
    # To interrupt is the way to end it, hence no failure.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    try:
        async with connected(server) as client:
            offset = start.offset
            if start.timestamp is not None:
                offset = await client.offset_at(stream, start.timestamp)
            on_gap: Literal["skip", "raise"] = "skip" if skip_gaps else "raise"
            pages = client.tail_pages(stream, offset, key=key, on_gap=on_gap)
            async with aclosing(pages):
                async for page in pages:
                    sys.stdout.buffer.write(render(page.records))
                    sys.stdout.buffer.flush()
    except asyncio.CancelledError:
        return


async def _end_of(
    client: AsyncClient, stream: str, stop: Position | None, consistency: str
) -> int | None:
    """Return the offset to stop before; None for the high watermark as it is found."""
    if stop is None:
        return None
    if stop.timestamp is not None:
        return await client.offset_at(stream, stop.timestamp)
    assert stop.offset is not None
    if stop.offset >= 0:
        return stop.offset
    page = await client.read_page(stream, -1, limit=1, consistency=consistency)
    return max(0, page.high_watermark + stop.offset)
