from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from cute_logger.client import AsyncClient
from support.command import cute
from support.up import running_up


async def test_it_prints_urls_and_one_ready_line(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=3) as up:
        assert [line.split() for line in up.lines] == [
            [node["id"], node["http"]] for node in up.ready["nodes"]
        ]
        assert up.ready["ready"] is True
        assert up.ready["leader"] in {"n1", "n2", "n3"}
        for node in up.ready["nodes"]:
            assert set(node) == {"id", "http", "raft", "pid", "data"}
            os.kill(node["pid"], 0)
            assert is_folder(node["data"])


async def test_sigint_stops_all_nodes_and_the_data_is_there_again(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=3) as up:
        async with AsyncClient(up.urls) as log:
            await log.create_stream("s")
            await log.produce("s", [b"a", b"b"])
        assert await up.stop(signal.SIGINT) == 0
        assert [node["id"] for node in up.ready["nodes"] if is_running(node["pid"])] == []

    async with running_up(tmp_path, nodes=3) as again, AsyncClient(again.urls) as log:
        records = await log.read("s", consistency="linearizable")
        assert [record.value for record in records] == [b"a", b"b"]
        assert (await log.produce("s", b"c")).first_offset == 2


async def test_a_killed_node_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=3) as up:
        leader = up.node(up.ready["leader"])
        async with AsyncClient(up.urls) as log:
            await log.create_stream("s")
            await log.produce("s", b"before")
            os.kill(leader["pid"], signal.SIGKILL)
            assert up.process.stderr is not None
            async with asyncio.timeout(10):
                told = (await up.process.stderr.readline()).decode()
            assert f"{leader['id']} (pid {leader['pid']}) was killed by signal 9" in told
            assert (await log.produce("s", b"after")).first_offset == 1
            records = await log.read("s", consistency="linearizable")
            assert [record.value for record in records] == [b"before", b"after"]


async def test_leadership_can_be_handed_over(tmp_path: Path) -> None:
    async with running_up(tmp_path, nodes=3) as up:
        other = next(n["id"] for n in up.ready["nodes"] if n["id"] != up.ready["leader"])
        done = await cute("cluster", "transfer", other, "--server", up.server)
        assert (done.code, done.stdout) == (0, f"{other} leads\n".encode())
        status = await cute("cluster", "status", "--server", up.server)
        assert status.stdout.decode().startswith(f"leader {other},")


def is_folder(path: str) -> bool:
    return os.path.isdir(path)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
