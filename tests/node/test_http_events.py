"""Reads that stay open: what they send, where they go on, and how they end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

STREAM = "/v1/streams/orders"
RECORDS = f"{STREAM}/records"
SSE = "text/event-stream"
LINES = "application/x-ndjson"
LINE_BYTES = 8 << 20


class Event(NamedTuple):
    kind: str
    fields: dict[str, Any]
    id: str | None = None


class Events:
    """An open read, event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._read = self._event if response.content_type == SSE else self._line

    async def next(self) -> Event | None:
        """Return the next event; None at the end."""
        async with asyncio.timeout(5):
            return await self._read()

    async def records(self, count: int) -> list[int]:
        """Return the offsets of the next `count` records, which nothing but heartbeats parts."""
        offsets: list[int] = []
        while len(offsets) < count:
            event = await self.next()
            assert event is not None
            if event.kind != "heartbeat":
                assert event.kind == "record", event
                offsets.append(event.fields["offset"])
        return offsets

    async def until(self, kind: str) -> Event:
        while (event := await self.next()) is None or event.kind != kind:
            assert event is not None, f"the stream ended without {kind}"
        return event

    async def rest(self) -> list[Event]:
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    async def _event(self) -> Event | None:
        fields: dict[str, str] = {}
        while (
            line := (await self.response.content.readline(max_line_length=LINE_BYTES)).decode()
        ) not in ("", "\n"):
            name, _, text = line.rstrip("\n").partition(": ")
            assert name not in fields
            fields[name] = text
        if not fields:
            return None
        return Event(fields["event"], json.loads(fields["data"]), fields.get("id"))

    async def _line(self) -> Event | None:
        line = await self.response.content.readline(max_line_length=LINE_BYTES)
        if not line:
            return None
        fields = json.loads(line)
        return Event(fields.pop("event"), fields)


@asynccontextmanager
async def follow(
    node, *, accept: str = SSE, headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[Events]:
    headers = {"Accept": accept, **(headers or {})}
    async with node.http.get(node.url(RECORDS), params=query, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == accept
        yield Events(response)


@pytest.fixture
async def orders(node):
    await node.create("orders")
    return node


@pytest.fixture
def often(monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.http.events.HEARTBEAT_S", 0.05)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def offsets(events: list[Event]) -> list[int]:
    return [event.fields["offset"] for event in events if event.kind == "record"]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def trim(node, before: int) -> None:
    await node.call("POST", f"{STREAM}/trim", status=200, json={"before": before})


async def idle(node) -> None:
    await node.until(lambda: not node.context.polls and not node.context.under_way)
    assert node.context.answers.taken == 0


@pytest.mark.parametrize("accept", [SSE, LINES])
async def test_a_stream_sends_what_is_there_and_what_comes(orders, accept) -> None:
    await orders.append("orders", "a", "b")
    async with follow(orders, accept=accept) as events:
        assert await events.next() == ("heartbeat", {"high_watermark": 2, "scanned_to": 0}, None)
        assert await events.records(2) == [0, 1]
        await orders.append("orders", "c")
        event = await events.next()
    page = await orders.read("orders", offset=2)
    assert event == ("record", page["records"][0], "2" if accept == SSE else None)
    await idle(orders)


async def test_bytes_and_line_breaks_come_as_in_a_page(orders) -> None:
    record = {"key_b64": "/w==", "value": "a\r\nb\n\ndata: c\u2028", "headers": {"h": "\n"}}
    await orders.call("POST", RECORDS, status=200, json={"records": [record, {"value": None}]})
    for accept in (SSE, LINES):
        async with follow(orders, accept=accept, until=2) as events:
            sent = [event.fields for event in await events.rest() if event.kind == "record"]
        assert sent == (await orders.read("orders"))["records"]


@pytest.mark.parametrize(
    "accept",
    ["text/event-stream, */*;q=0.1", "application/json;q=0.5, text/event-stream", SSE.upper()],
)
async def test_who_prefers_a_stream_gets_one(orders, accept) -> None:
    async with orders.http.get(orders.url(f"{RECORDS}?until=0"), headers={"Accept": accept}) as r:
        assert (r.status, r.content_type, r.headers["Cute-Node"]) == (200, SSE, "n1")


@pytest.mark.parametrize(
    "accept", ["application/json, text/event-stream", "text/event-stream;q=0", "*/*"]
)
async def test_who_takes_json_as_well_gets_a_page(orders, accept) -> None:
    page = await orders.call("GET", RECORDS, status=200, headers={"Accept": accept})
    assert page["why"] == "end_of_log"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"offset": 2}, [2, 3]),
        ({"offset": -1}, [3]),
        ({"timestamp": 300}, [2, 3]),
        ({"until": 2}, [0, 1]),
        ({"limit": 3}, [0, 1, 2]),
        ({"key": "k1"}, [1, 3]),
        ({"key": "k1", "limit": 1}, [1]),
        ({"offset": 2, "until": 2}, []),
        ({"max_bytes": 1}, [0, 1, 2, 3]),
    ],
)
async def test_a_stream_takes_a_pages_parameters(orders, query, found) -> None:
    records = [{"key": f"k{n % 2}", "value": "a", "timestamp": 100 * (n + 1)} for n in range(4)]
    await orders.call("POST", RECORDS, status=200, json={"records": records})
    async with follow(orders, **({"until": 4} | query)) as events:
        assert offsets(await events.rest()) == found
    await idle(orders)


async def test_a_stream_has_no_limit_of_its_own(orders) -> None:
    for _ in range(3):
        await orders.append("orders", *["x" * 100] * 4000)
    async with follow(orders, until=12_000) as events:
        assert offsets(await events.rest()) == list(range(12_000))


async def test_a_stream_goes_on_behind_the_last_event_id(orders) -> None:
    await orders.append("orders", *"abcd")
    seen = {"Last-Event-ID": "1"}
    for query in ({}, {"offset": 0}, {"offset": 99}, {"timestamp": 0}):
        async with follow(orders, headers=seen, until=4, **query) as events:
            assert offsets(await events.rest()) == [2, 3]


@pytest.mark.parametrize("given", ["x", "-1", "", "1.0", "9" * 30])
async def test_a_last_event_id_that_is_no_offset_is_refused(orders, given) -> None:
    headers = {"Accept": SSE, "Last-Event-ID": given}
    problem = await orders.refused("GET", RECORDS, "invalid_request", headers=headers)
    assert problem["field"] == "Last-Event-ID"


async def test_an_idle_stream_has_a_heartbeat(orders, often) -> None:
    await orders.append("orders", "a")
    async with follow(orders) as events:
        assert await events.records(1) == [0]
        for _ in range(2):
            assert await events.next() == (
                "heartbeat",
                {"high_watermark": 1, "scanned_to": 1},
                None,
            )
        await orders.append("orders", "b")
        assert await events.records(1) == [1]


async def test_a_filtered_stream_says_how_far_it_looked(orders, often) -> None:
    async with follow(orders, key="mine") as events:
        await orders.append("orders", *"abc")
        while (await events.until("heartbeat")).fields["scanned_to"] < 3:
            pass
        await orders.call(
            "POST", RECORDS, status=200, json={"records": [{"key": "mine", "value": "d"}]}
        )
        assert await events.records(1) == [3]


async def test_records_gone_before_the_stream_opened_are_a_gap(orders) -> None:
    await orders.append("orders", *"abcd")
    await trim(orders, 3)
    for accept in (SSE, LINES):
        async with follow(orders, accept=accept, offset=1, until=4) as events:
            _, gap, *rest = await events.rest()
        assert gap == ("gap", {"from": 1, "to": 3, "reason": "trim"}, None)
        assert offsets(rest) == [3]
    async with follow(orders, offset=0, until=2) as events:
        assert (await events.rest())[-1].fields == {"from": 0, "to": 2, "reason": "trim"}
    async with follow(orders, until=4) as events:
        assert kinds(await events.rest()) == ["heartbeat", "record"]


async def test_records_trimmed_under_a_reader_are_a_gap(orders) -> None:
    """The reader takes nothing while its part of the log goes: what it lacks is named."""
    value = "x" * 1_000_000
    async with follow(orders) as events:
        await events.next()
        for _ in range(24):
            await orders.append("orders", value)
        await trim(orders, 23)
        await orders.append("orders", "last")
        received: list[int] = []
        while (event := await events.next()).kind == "record":
            received.append(event.fields["offset"])
        assert event == ("gap", {"from": len(received), "to": 23, "reason": "trim"}, None)
        assert received == list(range(len(received)))
        assert await events.records(2) == [23, 24]


async def test_a_deleted_stream_ends_with_its_problem(orders) -> None:
    await orders.append("orders", "a")
    async with follow(orders) as events, follow(orders, accept=LINES) as lines:
        for reader in (events, lines):
            await reader.records(1)
        await orders.call("DELETE", STREAM, status=204)
        for reader in (events, lines):
            *_, last = await reader.rest()
            assert last.kind == "error"
            assert (last.fields["code"], last.fields["status"]) == ("unknown_stream", 404)
            request_id = reader.response.headers["Cute-Request-Id"]
            assert last.fields["request_id"] == request_id
    await idle(orders)


async def test_another_stream_of_the_same_name_is_not_followed(orders) -> None:
    """It is made before the reader looks again, and is longer than what the reader has."""
    await orders.append("orders", "x" * 1_000_000)
    async with follow(orders) as events:
        for _ in range(20):
            await orders.append("orders", "x" * 1_000_000)
        await orders.call("DELETE", STREAM, status=204)
        await orders.create("orders")
        await orders.append("orders", *["other"] * 50)
        *received, last = await events.rest()
    assert last.fields["code"] == "unknown_stream"
    assert all(len(e.fields["value"]) == 1_000_000 for e in received if e.kind == "record")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/streams/nowhere/records", "unknown_stream"),
        (f"{RECORDS}?offset=2", "beyond_high_watermark"),
        (f"{RECORDS}?after=999999", "not_caught_up"),
        (f"{RECORDS}?offset=x", "invalid_request"),
        (f"{RECORDS}?order=desc", "invalid_request"),
        (f"{RECORDS}?consistency=bounded", "invalid_request"),
    ],
)
async def test_what_fails_before_the_first_byte_is_a_problem(
    orders, monkeypatch, path, code
) -> None:
    monkeypatch.setattr("cute_logger.node.http.levels.LEVEL_TIMEOUT_S", 0.05)
    await orders.append("orders", "a")
    for accept in (SSE, LINES):
        await orders.refused("GET", path, code, headers={"Accept": accept})


async def test_open_streams_count_as_reads_that_wait(start_node) -> None:
    node = await start_node(polls_max=1)
    await node.create("orders")
    async with follow(node):
        await node.until(lambda: len(node.context.polls) == 1)
        await node.refused("GET", RECORDS, "throttled", headers={"Accept": SSE})
    await idle(node)


async def test_a_stream_waits_while_too_many_answers_are_under_way(orders) -> None:
    room = orders.config.answers_bytes_max
    orders.context.answers.take(room)
    async with follow(orders) as events:
        await orders.append("orders", "a")
        await events.next()
        orders.context.answers.give_back(room)
        assert await events.records(1) == [0]


async def test_a_stopping_node_ends_its_streams_without_an_error(orders) -> None:
    await orders.append("orders", "a")
    async with follow(orders) as events, follow(orders, accept=LINES) as lines:
        for reader in (events, lines):
            await reader.records(1)
        async with asyncio.timeout(5):
            assert await orders.server.drain(5)
        assert await events.rest() == await lines.rest() == []


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_a_client_that_goes_ends_its_stream_and_is_no_error(orders, caplog, size) -> None:
    for _ in range(10):
        await orders.append("orders", "x" * size)
    async with follow(orders) as events:
        await events.next()
        events.response.close()
    await idle(orders)
    assert not errors(caplog)


async def test_a_client_that_takes_nothing_is_cut_off(orders, monkeypatch, caplog) -> None:
    monkeypatch.setattr("cute_logger.node.http.answers.WRITE_TIMEOUT_S", 0.2)
    for _ in range(24):
        await orders.append("orders", "x" * 1_000_000)
    async with follow(orders) as events:
        await events.next()
        await idle(orders)
        with pytest.raises(aiohttp.ClientPayloadError):
            await events.rest()
    assert not errors(caplog)


async def test_old_http_gets_a_stream_that_ends_with_the_connection(orders) -> None:
    await orders.append("orders", "a")
    reader, writer = await asyncio.open_connection(*orders.config.http)
    writer.write(f"GET {RECORDS}?until=1 HTTP/1.0\r\nAccept: {LINES}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"chunked" not in head.lower()
    assert [json.loads(line)["event"] for line in body.splitlines()] == ["heartbeat", "record"]


async def test_every_node_streams_what_was_written_anywhere(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    async with follow(follower, consistency="linearizable") as events:
        receipt = await follower.append("orders", "a")
        await leader.append("orders", "b")
        assert await events.records(2) == [0, 1]
    async with follow(follower, after=receipt["index"], until=1) as events:
        assert offsets(await events.rest()) == [0]
