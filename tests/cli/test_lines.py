from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click
import pytest

from cute_logger.node.cli import lines
from cute_logger.node.cli.lines import lines_of


async def all_lines(file: Path) -> list[bytes]:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return [line async for some in lines_of(descriptor) for line in some]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"a\r\nb\x0bc\x85\n", [b"a\r", b"b\x0bc\x85"]),
        (b"\xff\x00\n", [b"\xff\x00"]),
    ],
)
async def test_only_a_newline_ends_a_line(
    tmp_path: Path, content: bytes, wanted: list[bytes]
) -> None:
    file = tmp_path / "input"
    file.write_bytes(content)
    assert await all_lines(file) == wanted


async def test_lines_across_chunks_stay_whole(tmp_path: Path) -> None:
    wanted = [b"x" * size for size in (0, lines.CHUNK_BYTES, 5, 3 * lines.CHUNK_BYTES, 1)]
    file = tmp_path / "input"
    file.write_bytes(b"".join(line + b"\n" for line in wanted))
    assert await all_lines(file) == wanted


async def test_a_line_comes_while_the_pipe_is_still_open() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"first\nsec")
    stream = lines_of(reader)
    async with asyncio.timeout(5):
        assert await anext(stream) == [b"first"]
        os.write(writer, b"ond\n")
        assert await anext(stream) == [b"second"]
        os.close(writer)
        assert [some async for some in stream] == []
    os.close(reader)


async def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"a\n" + bytes(lines.LINE_BYTES_MAX + lines.CHUNK_BYTES))
    with pytest.raises(click.ClickException, match="line 2"):
        await all_lines(file)
