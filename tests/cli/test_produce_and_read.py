"""Lines through a real cluster of three nodes and back."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
from pathlib import Path

from cute_logger.client import AsyncClient
from support.command import cute, start_cute
from support.up import running_up


async def test_arbitrary_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000) + b"\n"
    async with running_up(tmp_path) as up:
        await cute("stream", "create", "s", "--server", up.server)
        produced = await cute("produce", "s", "--json", "--server", up.server, stdin=content)
        linear = ("--consistency", "linearizable", "--server", up.server)
        values = await cute("read", "s", *linear)
        shapes = await cute("read", "s", "--json", *linear)

    count = content.count(b"\n")
    assert json.loads(produced.stdout) == {
        "stream": "s",
        "count": count,
        "first_offset": 0,
        "last_offset": count - 1,
    }
    assert values.stdout == content
    records = [json.loads(line) for line in shapes.stdout.splitlines()]
    assert [record["offset"] for record in records] == list(range(count))
    assert b"".join(_value(record) + b"\n" for record in records) == content


async def test_ranges_keys_and_times_choose_what_is_read(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        await cute("stream", "create", "s", "--server", up.server)
        lines = b"".join(b"%s:%d\n" % (b"ab"[i % 2 : i % 2 + 1], i) for i in range(20))
        await cute("produce", "s", "--key-sep", ":", "--server", up.server, stdin=lines)

        async def read(*arguments: str) -> list[int]:
            done = await cute("read", "s", *arguments, "--server", up.server)
            assert done.code == 0, done.stderr
            return [int(line) for line in done.stdout.splitlines()]

        assert await read("--from", "-3") == [17, 18, 19]
        assert await read("--from", "3", "--to", "6") == [3, 4, 5]
        assert await read("--from", "3", "--max", "2") == [3, 4]
        assert await read("--to", "-18") == [0, 1]
        assert await read("--key", "b", "--max", "3") == [1, 3, 5]
        assert await read("--from", "2001-01-01T00:00:00Z") == list(range(20))
        assert await read("--from", "2999-01-01T00:00:00Z") == []
        assert await read("--to", "2001-01-01T00:00:00Z") == []
        assert await read("--max", "0") == []
        assert await read("--reverse", "--max", "3") == [19, 18, 17]
        assert await read("--reverse", "--from", "3", "--to", "6") == [5, 4, 3]
        assert await read("--reverse", "--key", "b", "--to", "6") == [5, 3, 1]
        assert await read("--reverse", "--from", "-2") == [19, 18]


async def test_a_tail_follows_what_is_produced_meanwhile(tmp_path: Path) -> None:
    async with running_up(tmp_path) as up:
        await cute("stream", "create", "s", "--server", up.server)
        tail = await start_cute("tail", "s", "--server", up.server)
        assert tail.stdout is not None
        async with asyncio.timeout(20):
            for i in range(3):
                await cute("produce", "s", "--server", up.server, stdin=b"%d\n" % i)
                assert await tail.stdout.readline() == b"%d\n" % i
            tail.send_signal(signal.SIGINT)
            assert await tail.wait() == 0


async def test_a_stream_is_listed_shown_and_removed(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=1) as up:
        server = ("--server", up.server)
        setting = ("--config", "max.message.bytes=64KiB")
        created = await cute("stream", "create", "s", *setting, "--json", *server)
        assert json.loads(created.stdout)["config"]["max.message.bytes"] == 65_536
        assert (await cute("stream", "create", "s", *setting, *server)).code == 0
        assert (await cute("stream", "create", "s", *server)).code == 1
        assert (await cute("stream", "ls", *server)).stdout.split(b"\t")[0] == b"s"
        assert (await cute("stream", "rm", "s", *server)).code == 0
        assert (await cute("stream", "info", "s", *server)).code == 1
        assert (await cute("read", "s", *server)).code == 1


async def test_a_leader_killed_while_lines_flow_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async with running_up(tmp_path) as up, AsyncClient(up.urls) as log:
        await log.create_stream("s")
        async with log.producer("s", batch_bytes=2000, linger_ms=1) as producer:
            futures = []
            for i in range(30_000):
                if i == 10_000:
                    await futures[5_000]
                    os.kill(up.node(up.ready["leader"])["pid"], signal.SIGKILL)
                futures.append(await producer.send(b"%d" % i))
        assert [future.result() for future in futures] == list(range(30_000))
        values = [r.value async for r in log.read_iter("s", consistency="linearizable")]
    assert values == [b"%d" % i for i in range(30_000)]


def _value(record: dict[str, str]) -> bytes:
    if "value_b64" in record:
        return base64.b64decode(record["value_b64"])
    return record["value"].encode()
