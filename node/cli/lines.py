"""Lines of a file or pipe as records, in bounded memory and whatever bytes they hold."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import AsyncGenerator

import click

CHUNK_BYTES = 256 * 1024
CHUNKS_AHEAD = 4
LINE_BYTES_MAX = 16 * 1024 * 1024


async def lines_of(file: int) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines of the descriptor `file` without their newline, as they arrive.

    Nothing but b"\\n" ends a line; a last line without it is a line, too. Raises OSError, and
    click.ClickException for a line above 16 MiB.
    """
    rest: list[bytes] = []
    rest_bytes = 0
    count = 0
    async for chunk in _chunks_of(file):
        *complete, tail = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join([*rest, complete[0]])
            rest, rest_bytes = [], 0
            count += len(complete)
            yield complete
        rest.append(tail)
        rest_bytes += len(tail)
        if rest_bytes > LINE_BYTES_MAX:
            raise click.ClickException(f"line {count + 1} is longer than {LINE_BYTES_MAX} bytes")
    if last := b"".join(rest):
        yield [last]


async def _chunks_of(file: int) -> AsyncGenerator[bytes, None]:
    """Yield what a reading thread finds; it waits when it is a few chunks ahead.

    The thread is a daemon on the bare descriptor: an interrupt must not wait for a pipe's writer.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(CHUNKS_AHEAD)

    def read_on() -> None:
        while True:
            try:
                chunk: bytes | OSError = os.read(file, CHUNK_BYTES)
            except OSError as error:
                chunk = error
            put = chunks.put(chunk)
            try:
                asyncio.run_coroutine_threadsafe(put, loop).result()
            except (RuntimeError, concurrent.futures.CancelledError):
                put.close()
                return  # the loop has ended before the input
            if not chunk or isinstance(chunk, OSError):
                return

    threading.Thread(target=read_on, name="input", daemon=True).start()
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk
