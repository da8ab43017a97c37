"""Indexes and searches from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from support.command import cute
from support.up import running_up


async def test_records_are_found_by_value_and_key(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        server = ("--server", up.server)
        await cute("stream", "create", "s", *server)
        lines = b'k1:{"n": 5}\nk2:{"n": 3}\nk1:{"n": 3}\n'
        await cute("produce", "s", "--key-sep", ":", *server, stdin=lines)
        made = await cute("index", "create", "s", "n", "value:/n", "--json", *server)
        assert json.loads(made.stdout)["on"] == "value:/n"
        listed = await cute("index", "ls", "s", *server)
        assert listed.stdout.startswith(b"n\tbtree\tvalue:/n\t")
        found = await cute("search", "s", "n", "--eq", "3", "--format", "json", *server)
        assert [json.loads(line)["offset"] for line in found.stdout.splitlines()] == [1, 2]
        found = await cute("search", "s", "n", "--ge", "0", "--desc", "--max", "1", *server)
        assert found.stdout == b'{"n": 5}\n'
        assert (await cute("get", "s", "k1", *server)).stdout == b'{"n": 3}\n'
        assert (await cute("get", "s", "k1", "--as-of", "1", *server)).stdout == b'{"n": 5}\n'
        assert (await cute("get", "s", "k3", *server)).code == 1
        assert (await cute("index", "rm", "s", "n", *server)).stdout == b"n deleted\n"
        assert (await cute("search", "s", "n", "--eq", "3", *server)).code == 1


async def test_what_is_missing_or_wrong_is_wrong_usage() -> None:
    for arguments in (
        ("search", "s", "n"),
        ("search", "s"),
        ("get", "s"),
        ("get", "s", "k", "--as-of", "-1"),
        ("index", "create", "s", "n"),
        ("index", "create", "s", "n", "key", "--kind", "hash"),
    ):
        assert (await cute(*arguments)).code == 2
