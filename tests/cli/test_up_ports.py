from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

from support.command import cute, start_cute


def test_a_port_in_use_is_named_with_its_option(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ("up", "--nodes", "1", "--data", str(tmp_path), "--http-port", str(port - 1))
        done = asyncio.run(cute(*arguments))
    assert done.code == 1
    assert f"port {port} (http of n1) cannot be used" in done.stderr
    assert "--http-port" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_without_a_wish_ports_in_use_are_avoided(tmp_path: Path) -> None:
    """Two clusters with default ports, side by side."""
    ups = [await start_cute("up", "--data", str(tmp_path / name)) for name in ("a", "b")]
    try:
        urls: list[str] = []
        for process in ups:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                while not (line := await process.stdout.readline()).startswith(b"{"):
                    assert line, "it ended before it was ready"
            urls += [node["http"] for node in json.loads(line)["nodes"]]
        assert len(set(urls)) == 6
    finally:
        for process in ups:
            process.terminate()
            await process.communicate()
