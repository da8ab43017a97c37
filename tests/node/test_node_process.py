from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from support.ports import free_ports

DEADLINE_S = 20.0
COMMAND = "from cute_logger.node.cli.node_command import node; node()"


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@asynccontextmanager
async def process(folder: Path, ports: list[int], **options) -> AsyncIterator:
    """A `cute node` of its own, killed at the end if it has not gone by then."""
    http, raft = ports
    flags = f"--id n1 --data {folder} --http 127.0.0.1:{http} --cluster n1=127.0.0.1:{raft}"
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        *flags.split(),
        "--log-format=json",
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def ended(started) -> tuple[int, list[dict[str, object]]]:
    """Return the exit status and what was logged."""
    async with asyncio.timeout(DEADLINE_S):
        _, logged = await started.communicate()
    return started.returncode, [json.loads(line) for line in logged.splitlines()]


async def ready(session: aiohttp.ClientSession, base_url: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                async with session.get(f"{base_url}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_waiting_reads_and_the_process_with_status_0(
    tmp_path, ports, number
) -> None:
    base_url = f"http://127.0.0.1:{ports[0]}"
    async with aiohttp.ClientSession() as session, process(tmp_path / "n1", ports) as started:
        await ready(session, base_url)
        async with session.put(f"{base_url}/v1/streams/orders") as response:
            assert response.status == 201
        url = f"{base_url}/v1/streams/orders/records"
        async with session.post(url, json={"records": [{"value": "kept"}]}) as response:
            assert response.status == 200
        poll = asyncio.ensure_future(session.get(f"{url}?offset=1&wait_ms=60000"))
        await asyncio.sleep(0.05)

        started.send_signal(number)

        async with asyncio.timeout(DEADLINE_S), await poll as response:
            assert (await response.json(content_type=None))["code"] == "shutting_down"
        status, logged = await ended(started)

    assert status == 0
    assert [line["event"] for line in logged][-2:] == ["stopping", "stopped"]

    async with aiohttp.ClientSession() as session, process(tmp_path / "n1", ports):
        await ready(session, base_url)
        async with session.get(url) as response:
            assert [r["value"] for r in (await response.json())["records"]] == ["kept"]


async def test_a_folder_in_use_is_refused_with_status_1(tmp_path, ports) -> None:
    base_url = f"http://127.0.0.1:{ports[0]}"
    async with aiohttp.ClientSession() as session, process(tmp_path / "n1", ports):
        await ready(session, base_url)
        async with process(tmp_path / "n1", free_ports(2)) as second:
            status, logged = await ended(second)
    assert status == 1
    assert "locked" in logged[-1]["error"]


async def test_a_port_in_use_is_refused_with_status_1(tmp_path, ports) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", ports[0])
    async with server, process(tmp_path / "n1", ports) as started:
        status, logged = await ended(started)
    assert status == 1
    assert logged[-1]["event"] == "cannot listen for clients"


async def test_a_disk_that_fails_ends_the_process_with_status_70(tmp_path, ports) -> None:
    base_url = f"http://127.0.0.1:{ports[0]}"
    async with aiohttp.ClientSession() as session, process(tmp_path / "n1", ports) as started:
        await ready(session, base_url)
        async with session.put(f"{base_url}/v1/streams/orders") as response:
            assert response.status == 201
        resource.prlimit(started.pid, resource.RLIMIT_FSIZE, (1, 1))
        with pytest.raises(aiohttp.ClientError):
            await session.post(
                f"{base_url}/v1/streams/orders/records", json={"records": [{"value": "lost"}]}
            )
        status, logged = await ended(started)
    assert status == 70
    assert logged[-1]["event"] == "the replica failed"


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_a_node_that_can_accept_nobody_says_so_once(tmp_path, ports) -> None:
    base_url = f"http://127.0.0.1:{ports[0]}"
    async with process(tmp_path / "n1", ports) as started:
        async with aiohttp.ClientSession() as session:
            await ready(session, base_url)
        limit = open_files(started.pid) + 4
        _, hard = resource.prlimit(started.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(started.pid, resource.RLIMIT_NOFILE, (limit, hard))
        opened = [await asyncio.open_connection("127.0.0.1", ports[0]) for _ in range(12)]
        async with asyncio.timeout(DEADLINE_S):
            while open_files(started.pid) < limit:
                await asyncio.sleep(0.01)
        for _, writer in opened:
            writer.close()
        async with aiohttp.ClientSession() as session:
            await ready(session, base_url)
        started.send_signal(signal.SIGTERM)
        status, logged = await ended(started)
    assert status == 0
    errors = [line["event"] for line in logged if line["level"] == "error"]
    assert errors.count("cannot accept connections") == 1
    assert len(errors) < 50, "to close while asyncio wants to accept again costs some lines"


async def test_a_node_may_open_all_files_that_its_limit_allows(tmp_path, ports) -> None:
    def allow_few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))

    async with process(tmp_path / "n1", ports, preexec_fn=allow_few) as started:
        async with aiohttp.ClientSession() as session:
            await ready(session, f"http://127.0.0.1:{ports[0]}")
        assert resource.prlimit(started.pid, resource.RLIMIT_NOFILE) == (512, 512)
        started.send_signal(signal.SIGTERM)
        _, logged = await ended(started)
    warned = next(line for line in logged if line["event"] == "few open files allowed")
    assert warned["allowed"] == 512
    assert warned["wanted"] > 512
