"""`order=desc`: the records below an offset, the newest first."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

RECORDS = "/v1/streams/orders/records"


@pytest.fixture
async def orders(node):
    """Ten records in batches of 1, 3, 1, 4, 1."""
    await node.create("orders")
    values = iter("abcdefghij")
    for count in (1, 3, 1, 4, 1):
        await node.append("orders", *(next(values) for _ in range(count)))
    return node


async def down(node, **query: Any) -> dict[str, Any]:
    return await node.read("orders", order="desc", **query)


def offsets(page: dict[str, Any]) -> list[int]:
    return [record["offset"] for record in page["records"]]


async def test_the_newest_come_first(orders) -> None:
    page = await down(orders)
    assert offsets(page) == [*range(9, -1, -1)]
    assert "".join(record["value"] for record in page["records"]) == "jihgfedcba"
    assert page["next_offset"] == page["log_start_offset"] == 0
    assert page["high_watermark"] == 10
    assert page.keys() == (await orders.read("orders")).keys()


@pytest.mark.parametrize(
    ("query", "expected", "next_offset"),
    [
        ({"limit": 3}, [9, 8, 7], 7),
        ({"offset": 7, "limit": 3}, [6, 5, 4], 4),
        ({"offset": 1}, [0], 0),
        ({"offset": 0}, [], 0),
        ({"offset": 10, "limit": 1}, [9], 9),
        ({"offset": -4, "limit": 2}, [5, 4], 4),
        ({"until": 7}, [9, 8, 7], 7),
        ({"offset": 4, "until": 2}, [3, 2], 2),
        ({"offset": 3, "until": 3}, [], 3),
        ({"offset": 3, "until": 9}, [], 3),
        ({"max_bytes": 1}, [9], 9),
        ({"offset": 8, "max_bytes": 1}, [7], 7),
        ({"timestamp": 0}, [], 0),
    ],
)
async def test_a_range_is_what_it_is_upward_turned_around(
    orders, query: dict[str, int], expected: list[int], next_offset: int
) -> None:
    page = await down(orders, **query)
    assert offsets(page) == expected
    assert page["next_offset"] == next_offset


async def test_an_empty_page_says_why(orders) -> None:
    assert (await down(orders, offset=0))["why"] == "start_of_log"
    assert (await down(orders, offset=3, until=3))["why"] == "until"
    page = await down(orders, key="nobody")
    assert (page["why"], page["next_offset"]) == ("filtered", 0)


async def test_an_empty_stream_has_nothing_below(node) -> None:
    await node.create("orders")
    page = await down(node)
    assert (page["records"], page["next_offset"], page["why"]) == ([], 0, "start_of_log")


async def test_a_key_is_looked_for_downward(node) -> None:
    await node.create("orders")
    for first in range(0, 30, 3):
        records = [{"value": str(n), "key": f"c{n % 5}"} for n in range(first, first + 3)]
        await node.call("POST", RECORDS, status=200, json={"records": records})
    page = await down(node, key="c2", limit=3)
    assert offsets(page) == [27, 22, 17]
    assert page["next_offset"] == 17


@pytest.mark.parametrize("seed", range(3))
async def test_going_on_at_next_offset_shows_each_record_once(node, seed: int) -> None:
    rng = random.Random(seed)
    await node.create("orders", **{"compression.type": rng.choice(("none", "zstd"))})
    for _ in range(30):
        values = ["a" * rng.choice((1, 50, 2000)) for _ in range(rng.choice((1, 2, 30)))]
        await node.append("orders", *values)
    everything = offsets(await node.read("orders", limit=10_000))
    for query in ({"limit": 7}, {"max_bytes": 3000}, {"limit": 400, "max_bytes": 9000}):
        seen: list[int] = []
        offset: dict[str, int] = {}
        while True:
            page = await down(node, **query, **offset)
            assert len(page["records"]) <= query.get("limit", 500)
            if not page["records"]:
                break
            seen += offsets(page)
            offset = {"offset": page["next_offset"]}
        assert seen == everything[::-1]
        assert node.context.answers.taken == 0


async def test_a_trimmed_log_ends_where_it_begins(orders) -> None:
    await orders.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 6})
    page = await down(orders, until=2)
    assert offsets(page) == [9, 8, 7, 6]
    assert page["next_offset"] == 6
    problem = await orders.refused("GET", f"{RECORDS}?order=desc&offset=5", "offset_trimmed")
    assert problem["log_start_offset"] == 6


async def test_an_offset_that_does_not_exist_yet_is_refused(orders) -> None:
    problem = await orders.refused(
        "GET", f"{RECORDS}?order=desc&offset=11", "beyond_high_watermark"
    )
    assert problem["high_watermark"] == 10


@pytest.mark.parametrize(
    ("query", "accept", "field"),
    [
        ("wait_ms=10", "application/json", "wait_ms"),
        ("limit=1", "text/event-stream", "order"),
        ("limit=1", "application/x-ndjson", "order"),
    ],
)
async def test_what_makes_no_sense_downward_is_refused(orders, query, accept, field) -> None:
    path = f"{RECORDS}?order=desc&{query}"
    problem = await orders.refused("GET", path, "invalid_request", headers={"Accept": accept})
    assert problem["field"] == field


async def test_msgpack_goes_downward_too(orders) -> None:
    path = f"{RECORDS}?order=desc&limit=2"
    headers = {"Accept": "application/msgpack"}
    async with orders.http.get(orders.url(path), headers=headers) as response:
        page = msgspec.msgpack.decode(await response.read())
    assert [record["value"] for record in page["records"]] == [b"j", b"i"]


async def test_a_follower_goes_downward_from_what_it_knows(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    receipt = await leader.append("orders", "a", "b")
    page = await follower.read("orders", order="desc", after=receipt["index"])
    assert offsets(page) == [1, 0]


async def test_a_long_way_down_takes_few_reads(node, monkeypatch) -> None:
    """Batches of one record each, in strides."""
    await node.create("orders")
    for number in range(150):
        await node.append("orders", str(number))
    reads = []
    read = node.replica.read

    async def counted(*args: Any, **options: Any) -> Any:
        reads.append(args)
        return await read(*args, **options)

    monkeypatch.setattr(node.replica, "read", counted)
    assert offsets(await down(node, limit=500)) == [*range(149, -1, -1)]
    assert len(reads) < 8
