from __future__ import annotations

import asyncio
import signal

import pytest

from support.command import cute, start_cute
from support.scripted_node import Plays, ScriptedNode


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("produce",),
        ("read", "s", "--from", "yesterday"),
        ("stream", "create", "s", "--config", "no-equals-sign"),
        ("cluster", "status", "--server", "nowhere"),
        ("up", "--nodes", "0"),
    ],
)
async def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = await cute(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.stderr


async def test_a_refusal_is_1(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(404, "unknown_stream")]
    done = await cute("produce", "s", "--server", node.url, stdin=b"a\n")
    assert done.code == 1
    assert "it is unknown_stream" in done.stderr


async def test_an_unknown_outcome_is_3(node: ScriptedNode) -> None:
    node.plays = [Plays.hang_up(carry_out=False), Plays.refuse(409, "producer_expired")]
    done = await cute("produce", "s", "--server", node.url, stdin=b"a\n")
    assert done.code == 3
    assert "0 records are certainly in; 0 were refused, of 1 the outcome is unknown" in done.stderr


async def test_no_node_is_4() -> None:
    done = await cute("cluster", "status", "--server", "http://127.0.0.1:9")
    assert done.code == 4
    assert done.stderr.startswith("cute: no node answered")


async def test_the_variable_names_the_cluster_too(node: ScriptedNode) -> None:
    done = await cute("cluster", "status", CUTE_SERVER=node.url)
    assert (done.code, done.stderr) == (0, "")


async def test_the_option_of_the_group_names_the_cluster_too(node: ScriptedNode) -> None:
    done = await cute("--server", node.url, "cluster", "status")
    assert (done.code, done.stderr) == (0, "")


async def test_an_interrupted_command_is_130_and_quiet(node: ScriptedNode) -> None:
    process = await start_cute("produce", "s", "--server", node.url)
    assert process.stdin is not None
    process.stdin.write(b"a\n")
    await node.wait_for_appends(1)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        _, stderr = await process.communicate()
    assert (process.returncode, stderr.strip()) == (130, b"")
    assert node.values == [b"a"]


async def test_an_interrupted_tail_is_0(node: ScriptedNode) -> None:
    node.values = [b"a"]
    process = await start_cute("tail", "s", "--server", node.url)
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert await process.stdout.readline() == b"a\n"
        process.send_signal(signal.SIGINT)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_a_reader_that_has_enough_is_no_failure(node: ScriptedNode) -> None:
    node.values = [b"x" * 1000] * 2000
    process = await start_cute("read", "s", "--server", node.url)
    assert process.stdout is not None
    async with asyncio.timeout(10):
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        stderr = await process.stderr.read() if process.stderr else b""
        await process.wait()
    assert (process.returncode, stderr) == (0, b"")
