"""`cute bench` on a real node."""

from __future__ import annotations

import json
from pathlib import Path

from cute_logger.client import AsyncClient
from support.command import cute
from support.up import running_up


async def test_a_cluster_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        settings = ("--seconds", "0.4", "--rate", "80", "--readers", "3", "--records", "500")
        wide = ("--processes", "2", "--streams", "2", "--value-bytes", "100")
        cases = ("pipelined", "catch-up", "tail")
        done = await cute("bench", *cases, *settings, *wide, "--json", "--server", up.server)
        async with AsyncClient(up.urls) as client:
            left = await client.streams()

    assert (done.code, done.stderr) == (0, "")
    pipelined, catch_up, tail = json.loads(done.stdout)["cases"]
    assert (pipelined["errors"], pipelined["seconds"]) == (0, 0.4)
    assert (catch_up["records"], catch_up["latency_ms"]) == (1500, None)
    assert tail["records"] == 48  # 80/s for 0.4 s: 16 of each stream, to two readers and to one
    assert tail["latency_ms"]["p50"] > 0
    assert left == []
