from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from cute_logger.client import AsyncClient, Gap, Record, UnknownStream
from support.scripted_node import ScriptedNode, problem


async def take(log: AsyncClient, count: int, *args: Any, **options: Any) -> list[Record]:
    taken: list[Record] = []
    async with asyncio.timeout(10), aclosing(log.tail("s", *args, **options)) as records:
        async for record in records:
            taken.append(record)
            if len(taken) == count:
                break
    return taken


async def test_a_tail_waits_for_what_comes(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        await log.produce("s", b"a")
        tail = asyncio.create_task(take(log, 2, 0))
        await log.produce("s", b"b")
        assert [(r.offset, r.value) for r in await tail] == [(0, b"a"), (1, b"b")]


async def test_a_negative_start_counts_from_the_end(node: ScriptedNode) -> None:
    node.values = [b"a", b"b", b"c"]
    async with AsyncClient([node.url]) as log:
        assert [r.value for r in await take(log, 2, -2)] == [b"b", b"c"]


async def test_a_tail_goes_on_at_another_node_where_it_stopped(
    node: ScriptedNode, second_node: ScriptedNode
) -> None:
    node.values = [b"a", b"b"]
    second_node.values = [b"a", b"b", b"c"]
    async with AsyncClient([node.url, second_node.url]) as log:
        taken = []
        async with asyncio.timeout(10), aclosing(log.tail("s", 0)) as records:
            async for record in records:
                taken.append(record.value)
                if len(taken) == 2:
                    await node.stop()
                if len(taken) == 3:
                    break
    assert taken == [b"a", b"b", b"c"]


async def test_a_node_that_is_cut_off_and_has_nothing_new_is_left(
    node: ScriptedNode, second_node: ScriptedNode
) -> None:
    second_node.values = [b"a"]
    node.reads = [lambda: empty_page(lag_ms=60_000)]
    async with AsyncClient([node.url, second_node.url]) as log:
        assert [r.value for r in await take(log, 1, 0)] == [b"a"]
    assert len(node.queries) == 1


def empty_page(*, lag_ms: int) -> web.Response:
    body = {"stream": "s", "records": [], "next_offset": 0, "log_start_offset": 0}
    return web.json_response(
        body | {"high_watermark": 0, "index": 10, "term": 1, "lag_ms": lag_ms, "why": "end_of_log"}
    )


async def test_a_503_does_not_end_a_tail(node: ScriptedNode) -> None:
    node.values = [b"a"]
    node.reads = [lambda: problem(503, "not_ready")] * 3
    async with AsyncClient([node.url]) as log:
        assert [r.value for r in await take(log, 1, 0)] == [b"a"]


async def test_removed_records_are_told(node: ScriptedNode) -> None:
    node.values = [b"a", b"b", b"c"]
    node.log_start_offset = 2
    async with AsyncClient([node.url]) as log:
        with pytest.raises(Gap) as gap:
            await take(log, 1, 0)
    assert (gap.value.start, gap.value.end) == (0, 2)


async def test_removed_records_are_skipped_if_wanted(node: ScriptedNode) -> None:
    node.values = [b"a", b"b", b"c"]
    node.log_start_offset = 2
    async with AsyncClient([node.url]) as log:
        assert [r.offset for r in await take(log, 1, 0, on_gap="skip")] == [2]


async def test_a_final_refusal_ends_a_tail(node: ScriptedNode) -> None:
    node.reads = [lambda: problem(404, "unknown_stream")]
    async with AsyncClient([node.url]) as log:
        with pytest.raises(UnknownStream):
            await take(log, 1, 0)


async def test_wrong_arguments_are_told(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        with pytest.raises(ValueError, match="on_gap"):
            await take(log, 1, 0, on_gap="ignore")
        with pytest.raises(TypeError):
            await take(log, 1, "0")


async def test_read_iter_pages_up_to_the_end_of_the_call(node: ScriptedNode) -> None:
    node.values = [b"%d" % i for i in range(25)]
    async with AsyncClient([node.url]) as log:
        whole = [r.offset async for r in log.read_iter("s", page_records=10)]
        part = [r.offset async for r in log.read_iter("s", 3, 14, page_records=10)]
    assert whole == list(range(25))
    assert part == list(range(3, 14))


async def test_reading_an_empty_stream_yields_nothing(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        assert await log.read("s") == []
        assert [r async for r in log.read_iter("s")] == []
