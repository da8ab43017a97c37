"""Followers at a real node's fast door: pages are pushed as records are committed."""

from __future__ import annotations

import asyncio
import struct
from contextlib import aclosing
from typing import Any

import msgpack
import pytest

from cute_logger.client import AsyncClient, Gap
from cute_logger.client.batch_format import Cut, records_in
from support.door import HELLO, PROBLEM, DoorEnd, Frame, append, batch, door, frame

FOLLOW, PAGE, CREDIT, UNFOLLOW = 5, 6, 7, 8


def follow(request_id: int, **head: Any) -> bytes:
    said = {"stream": "orders", "credit": 1 << 20} | head
    return frame(request_id, FOLLOW, msgpack.packb(said))


def page_of(came: Frame) -> tuple[dict[str, Any], list[bytes | None]]:
    """Return a page's head and the values in it."""
    assert came.kind == PAGE, came
    size = struct.unpack_from("<H", came.payload)[0]
    head = msgpack.unpackb(came.payload[2 : 2 + size])
    cut = Cut(head["offset"], head["next_offset"], None, 1 << 30)
    records, _ = records_in(came.payload[2 + size :], cut)
    return head, [record.value for record in records]


async def values_until(end: DoorEnd, next_offset: int, request_id: int = 1) -> list[bytes | None]:
    """Return the values of the pages up to `next_offset`, which follow each other."""
    values: list[bytes | None] = []
    before = None
    while before is None or before < next_offset:
        came = await end.frame()
        assert came.request_id == request_id
        head, more = page_of(came)
        assert before in (None, head["offset"])
        before = head["next_offset"]
        values += more
    return values


async def test_pages_come_at_once_and_then_as_records_are_committed(node) -> None:
    await node.create("orders")
    await node.append("orders", "a", "b")
    async with door(node.config.http) as end:
        assert (await end.frame()).kind == HELLO
        end.send(follow(1))
        head, values = page_of(await end.frame())
        assert values == [b"a", b"b"]
        assert (head["offset"], head["next_offset"], head["high_watermark"]) == (0, 2, 2)
        assert (head["node"], head["leader"], head["lag_ms"]) == ("n1", "n1", 0)
        for value in ("c", "d"):
            await node.append("orders", value)
            head, values = page_of(await end.frame())
            assert values == [value.encode()]


@pytest.mark.parametrize(("offset", "expected"), [(1, [b"b", b"c"]), (-1, [b"c"]), (3, [])])
async def test_where_to_begin(node, offset, expected) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(9, batch(b"a", b"b", b"c")))
        await end.frame()
        end.send(follow(1, offset=offset))
        head, values = page_of(await end.frame())
        assert head["offset"] == 3 - len(expected)
        assert values == expected


async def test_many_followers_get_all_in_order(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end, door(node.config.http) as other:
        for each in (end, other):
            await each.frame()
        end.send(follow(1))
        other.send(*(follow(n) for n in range(1, 21)))
        for n in range(50):
            await node.append("orders", str(n))
        expected = [b"%d" % n for n in range(50)]
        assert await values_until(end, 50) == expected
        got: dict[int, list[bytes | None]] = {n: [] for n in range(1, 21)}
        while any(len(values) < 50 for values in got.values()):
            came = await other.frame()
            got[came.request_id] += page_of(came)[1]
        assert all(values == expected for values in got.values())


async def test_nothing_is_sent_without_credit(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1, credit=1))
        page_of(await end.frame())
        await node.append("orders", "a")
        await node.append("orders", "b")
        end.send(append(2, batch(b"c")))
        assert (await end.frame()).request_id == 2
        end.send(frame(1, CREDIT, struct.pack("<I", 1 << 20)))
        assert await values_until(end, 3) == [b"a", b"b", b"c"]
        await node.append("orders", "d")
        assert page_of(await end.frame())[1] == [b"d"]


async def test_empty_pages_tell_that_the_node_is_alive(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.door.feeds.BEAT_S", 0.05)
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1))
        for _ in range(3):
            assert page_of(await end.frame())[1] == []


WRONG_FOLLOWS = {
    "another stream": (follow(1, stream="other"), "unknown_stream"),
    "a wrong name": (follow(1, stream="A/B"), "invalid_request"),
    "too far": (follow(1, offset=7), "beyond_high_watermark"),
    "an unknown member": (follow(1, more=1), "invalid_request"),
    "no credit": (follow(1, credit=0), "invalid_request"),
    "no text": (frame(1, FOLLOW, b"\x81\xa6stream\xa1\xff"), "invalid_request"),
}


@pytest.mark.parametrize("name", WRONG_FOLLOWS)
async def test_a_wrong_follow_is_refused(node, name) -> None:
    sent, code = WRONG_FOLLOWS[name]
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(sent)
        assert (await end.frame()).problem()["code"] == code
        assert len(node.context.feeds) == 0
        end.send(follow(2))
        assert page_of(await end.frame())[1] == []


async def test_a_broken_credit_ends_the_connection(node) -> None:
    async with door(node.config.http) as end:
        await end.frame()
        end.send(frame(1, CREDIT, b"???"))
        assert (await end.frame()).problem()["field"] == "frame"
        await end.until_closed()


async def test_what_was_trimmed_ends_the_follow(node) -> None:
    await node.create("orders")
    await node.append("orders", "a", "b")
    await node.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 2})
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1, offset=0))
        problem = (await end.frame()).problem()
        assert (problem["code"], problem["log_start_offset"]) == ("offset_trimmed", 2)


async def test_a_deleted_stream_ends_the_follow(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.door.feeds.BEAT_S", 0.05)
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1))
        await end.frame()
        await node.call("DELETE", "/v1/streams/orders", status=204)
        while (came := await end.frame()).kind != PROBLEM:
            pass
        assert came.problem()["code"] == "unknown_stream"


async def test_followers_end_with_an_unfollow_and_with_their_connection(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1), follow(2))
        await end.frames(2)
        assert len(node.context.feeds) == 2
        end.send(frame(1, UNFOLLOW, b""))
        await node.until(lambda: len(node.context.feeds) == 1)
    await node.until(lambda: len(node.context.feeds) == 0)
    assert not node.context.feeds._feeds
    assert node.context.answers.taken == 0


async def test_open_reads_are_bounded(start_node) -> None:
    node = await start_node(polls_max=1)
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1))
        page_of(await end.frame())
        end.send(follow(2))
        assert (await end.frame()).problem()["code"] == "throttled"


async def test_a_node_that_stops_says_so(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1))
        await end.frame()
        assert await node.server.drain(5)
        assert (await end.frame()).problem()["code"] == "shutting_down"


async def test_a_client_that_takes_nothing_holds_little_memory(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(follow(1, credit=16 << 20))
        (transport,) = node.context.strangers
        for _ in range(12):
            await node.append("orders", "x" * 1_000_000)
        assert transport.get_write_buffer_size() < 3 << 20
        assert len(await values_until(end, 12)) == 12


async def test_a_tail_goes_through_the_door_and_skips_nothing(node) -> None:
    await node.create("orders")
    got: list[bytes | None] = []
    async with AsyncClient([node.config.http_url]) as log:

        async def read() -> None:
            async with aclosing(log.tail("orders", 0)) as records:
                async for record in records:
                    assert record.offset == len(got)
                    got.append(record.value)
                    if len(got) == 300:
                        return

        reading = asyncio.create_task(read())
        await node.until(lambda: len(node.context.feeds) == 1)
        await asyncio.gather(*(log.produce("orders", b"%d" % n) for n in range(300)))
        async with asyncio.timeout(10):
            await reading
        await node.until(lambda: len(node.context.feeds) == 0)
    assert sorted(got) == sorted(b"%d" % n for n in range(300))


async def test_a_tail_goes_on_at_another_node(cluster) -> None:
    leader, first, second = cluster
    await leader.create("orders")
    urls = [first.config.http_url, second.config.http_url, leader.config.http_url]
    async with AsyncClient(urls) as log:
        records = log.tail("orders", 0)
        async with aclosing(records), asyncio.timeout(20):
            await leader.append("orders", "a")
            assert (await anext(records)).value == b"a"
            assert len(first.context.feeds) == 1
            await first.server.drain(5)
            await first.server.close()
            await leader.append("orders", "b")
            assert (await anext(records)).value == b"b"
            assert len(second.context.feeds) + len(leader.context.feeds) == 1


async def test_a_tail_tells_a_gap(node) -> None:
    await node.create("orders")
    await node.append("orders", "a", "b")
    await node.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 1})
    async with AsyncClient([node.config.http_url]) as log:
        async with aclosing(log.tail("orders", 0)) as records:
            with pytest.raises(Gap):
                await anext(records)
        async with aclosing(log.tail("orders", 0, on_gap="skip")) as records:
            assert (await anext(records)).value == b"b"
