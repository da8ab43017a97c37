from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

RECORDS = "/v1/streams/orders/records"
KIB = 1024
MIB = 1024 * KIB
ONE = {"records": [{"value": "a"}]}


async def test_a_record_above_the_streams_limit_is_refused_with_it(node) -> None:
    await node.create("orders", **{"max.message.bytes": 10})
    await node.append("orders", "x" * 10)

    problem = await node.refused(
        "POST", RECORDS, "record_too_large", json={"records": [{"value": "x" * 9, "key": "kk"}]}
    )

    assert problem["limit_bytes"] == 10
    assert problem["status"] == 413


async def test_a_batch_above_four_mebibytes_is_refused_with_the_limit(node) -> None:
    await node.create("orders")
    problem = await node.refused("POST", RECORDS, "batch_too_large", **large_append(MIB))
    assert problem["limit_bytes"] == 4 * MIB


async def test_a_batch_of_almost_four_mebibytes_is_taken_and_read_back(node) -> None:
    await node.create("orders")
    await node.call("POST", RECORDS, status=200, **large_append(MIB - 100))
    page = await node.read("orders", max_bytes=8 * MIB)
    assert [len(record["value"]) for record in page["records"]] == [MIB - 100] * 4


async def test_a_body_too_long_is_refused_before_it_is_sent(node) -> None:
    head = (
        f"POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {8 * MIB + 1}\r\n\r\n"
    )
    async with connection(node) as (reader, writer):
        writer.write(head.encode())
        problem = await answer(reader)
    assert problem["code"] == "batch_too_large"
    assert problem["limit_bytes"] == 8 * MIB


async def test_who_asks_before_sending_a_body_too_long_is_told_no(node) -> None:
    head = (
        f"POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {8 * MIB + 1}\r\nExpect: 100-continue\r\n\r\n"
    )
    async with connection(node) as (reader, writer):
        writer.write(head.encode())
        assert (await answer(reader))["code"] == "batch_too_large"


async def test_a_chunked_body_is_refused_once_it_is_too_long(start_node) -> None:
    node = await start_node(body_bytes_max=64 * KIB)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 32 * KIB

    problem = await node.refused(
        "POST",
        RECORDS,
        "batch_too_large",
        data=chunks(),
        headers={"Content-Type": "application/json"},
    )
    assert problem["limit_bytes"] == 64 * KIB
    assert node.context.bodies.taken == 0


async def test_bodies_under_way_are_bounded_and_given_back(start_node) -> None:
    node = await start_node(body_bytes_max=600 * KIB, bodies_bytes_max=MIB)
    await node.create("orders")
    async with connection(node) as (_, slow):
        slow.write(partial_body(599 * KIB))
        await node.until(lambda: node.context.bodies.taken == 599 * KIB)
        async with connection(node) as (reader, writer):
            writer.write(partial_body(599 * KIB))
            problem = await answer(reader)
        assert problem["code"] == "throttled"
        assert problem["limit_bytes"] == MIB
        await node.append("orders", "small enough")

    await node.until(lambda: node.context.bodies.taken == 0)


async def test_reads_that_wait_are_bounded(start_node) -> None:
    node = await start_node(polls_max=1)
    await node.create("orders")
    poll = asyncio.ensure_future(node.read("orders", wait_ms=30_000))
    await node.until(lambda: len(node.context.polls) == 1)

    await node.refused("GET", f"{RECORDS}?wait_ms=1000", "throttled")
    await node.append("orders", "a")

    async with asyncio.timeout(5):
        assert len((await poll)["records"]) == 1


async def test_answers_under_way_are_bounded(node) -> None:
    await node.create("orders")
    await node.append("orders", "x" * 1000)
    room = node.config.answers_bytes_max - 500
    node.context.answers.take(room)
    await node.refused("GET", RECORDS, "throttled")
    node.context.answers.give_back(room)
    assert len((await node.read("orders"))["records"]) == 1


async def test_connections_beyond_the_limit_are_told_so_then_cut_off(start_node) -> None:
    node = await start_node(connections_max=2)
    async with connection(node), connection(node), connection(node) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))["code"] == "throttled"
        assert await reader.read() == b""
        async with connection(node), connection(node), connection(node) as (reader, _):
            await until_closed(reader)
    await node.until(lambda: node.context.connections == 0)


async def test_a_connection_that_says_nothing_is_closed(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.http.place.FIRST_REQUEST_TIMEOUT_S", 0.05)
    async with connection(node) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n")
        await until_closed(reader)


async def test_a_body_that_does_not_come_is_given_up(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.http.bodies.BODY_TIMEOUT_S", 0.05)
    async with connection(node) as (reader, writer):
        writer.write(partial_body(10))
        problem = await answer(reader)
    assert problem["code"] == "invalid_request"
    assert problem["field"] == "body"


async def test_a_node_that_stops_ends_its_waiting_reads_and_refuses_the_rest(node) -> None:
    await node.create("orders")
    poll = asyncio.ensure_future(node.refused("GET", f"{RECORDS}?wait_ms=60000", "shutting_down"))
    await node.until(lambda: len(node.context.polls) == 1)

    async with asyncio.timeout(5):
        assert await node.server.drain(5)
        await poll

    await node.refused("POST", RECORDS, "shutting_down", json=ONE)
    await node.refused("GET", RECORDS, "shutting_down")
    problem = await node.refused("GET", "/readyz", "not_ready")
    assert problem["reason"] == "stopping"
    assert await node.call("GET", "/livez", status=200) == {"status": "alive"}


async def test_a_drain_is_over_in_time_even_if_a_request_is_not(node) -> None:
    async with connection(node) as (_, writer):
        writer.write(partial_body(10))
        await node.until(lambda: node.context.under_way == 1)
        assert not await node.server.drain(0.05)


@pytest.mark.parametrize("count", [1, 3])
async def test_pipelined_requests_are_answered_in_order(node, count) -> None:
    async with connection(node) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        assert [(await answer(reader))["status"] for _ in range(count)] == ["alive"] * count


def large_append(value_size: int) -> dict[str, Any]:
    """Four records, as a stream so that the client does not warn of a large body."""
    body = json.dumps({"records": [{"value": "x" * value_size}] * 4}).encode()
    return {"data": io.BytesIO(body), "headers": {"Content-Type": "application/json"}}


def partial_body(size: int) -> bytes:
    """The head of an append of `size + 1` bytes and all of its body but the last byte."""
    head = (
        f"POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size + 1}\r\n\r\n"
    )
    return head.encode() + b" " * size


class connection:  # noqa: N801 - reads as the context manager it is
    def __init__(self, node) -> None:
        self._address = node.config.http

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self._reader, self._writer

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()


async def answer(reader: asyncio.StreamReader) -> dict[str, object]:
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = head.partition("content-length: ")[2].partition("\r\n")[0]
        return json.loads(await reader.readexactly(int(length)))


async def until_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
