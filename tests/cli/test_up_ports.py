from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from support.command import cute


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
