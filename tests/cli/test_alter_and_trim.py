"""Settings changed and records removed from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from support.command import cute
from support.up import running_up


async def test_a_stream_is_altered_and_trimmed(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        server = ("--server", up.server)
        await cute("stream", "create", "s", "--config", "max.message.bytes=64KiB", *server)
        await cute("produce", "s", *server, stdin=b"a\nb\nc\n")

        settings = ("--config", "retention.ms=7d", "--config", "retention.records=1000000")
        altered = await cute("stream", "alter", "s", *settings, "--json", *server)
        config = json.loads(altered.stdout)["config"]
        assert config["retention.ms"] == 7 * 86_400_000
        assert config["retention.records"] == 1_000_000
        assert config["max.message.bytes"] == 65_536

        trimmed = await cute("stream", "trim", "s", "--before", "2", "--json", *server)
        assert json.loads(trimmed.stdout) == {"name": "s", "log_start_offset": 2}
        trimmed = await cute("stream", "trim", "s", "--before", "1", *server)
        assert (trimmed.code, trimmed.stdout) == (0, b"s begins at offset 2\n")
        assert (await cute("read", "s", *server)).stdout == b"c\n"

        for refused in (
            await cute("read", "s", "--from", "0", *server),
            await cute("stream", "trim", "s", "--before", "4", *server),
            await cute("stream", "trim", "t", "--before", "0", *server),
            await cute("stream", "alter", "s", "--config", "immutable=true", *server),
        ):
            assert refused.code == 1, refused
            assert "Traceback" not in refused.stderr


async def test_what_is_missing_or_wrong_is_wrong_usage() -> None:
    for arguments in (("trim", "s"), ("trim", "s", "--before", "-1"), ("alter", "s")):
        assert (await cute("stream", *arguments)).code == 2
