"""Consumer groups from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from support.command import cute
from support.up import running_up


async def test_offsets_are_set_shown_and_removed(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        server = ("--server", up.server)
        await cute("stream", "create", "s", *server)
        await cute("produce", "s", *server, stdin=b"a\nb\nc\n")

        committed = await cute("group", "commit", "g", "s", "2", *server)
        assert committed.stdout == b"g goes on at offset 2 of s, 1 behind\n"
        committed = await cute("group", "commit", "g", "s", "1", "--json", *server)
        assert json.loads(committed.stdout)["lag"] == 2
        assert (await cute("group", "ls", *server)).stdout == b"g\ts\t1\t3\t2\t-\t-\n"
        info = json.loads((await cute("group", "info", "g", "--json", *server)).stdout)
        assert (info["name"], info["streams"][0]["offset"]) == ("g", 1)

        refused = await cute("group", "commit", "g", "s", "1", "--lease", "7", *server)
        assert (refused.code, b"lease" in refused.stderr.encode()) == (1, True)
        assert (await cute("group", "commit", "g", "s", "4", *server)).code == 1
        assert (await cute("group", "rm", "g", *server)).stdout == b"g deleted\n"
        assert (await cute("group", "info", "g", *server)).code == 1


async def test_what_is_missing_or_wrong_is_wrong_usage() -> None:
    for arguments in (("commit", "g", "s"), ("commit", "g", "s", "-1"), ("info",)):
        assert (await cute("group", *arguments)).code == 2
