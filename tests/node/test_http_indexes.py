"""Secondary indexes: defined on a live stream, searched while they are built, dropped."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

INDEXES = "/v1/streams/orders/indexes"
SEARCH = "/v1/streams/orders/search"
KEYS = "/v1/streams/orders/keys"
SMALL = {"segment.bytes": 16 * 1024}


async def put(node, name: str, on: str, kind: str = "btree", status: int = 201) -> dict[str, Any]:
    body = {"kind": kind, "on": on}
    return await node.call("PUT", f"{INDEXES}/{name}", status=status, json=body)


async def ready(node, name: str) -> dict[str, Any]:
    """Wait until the index covers everything."""
    async with asyncio.timeout(10):
        while True:
            found = await node.call("GET", f"{INDEXES}/{name}", status=200)
            if found["state"] == "ready" and found["coverage"] == 1.0:
                return found
            await asyncio.sleep(0.02)


async def append(node, records: list[dict[str, Any]]) -> None:
    path = "/v1/streams/orders/records"
    await node.call("POST", path, status=200, json={"records": records})


async def find(node, **query: Any) -> list[int]:
    """Offsets of all pages."""
    offsets: list[int] = []
    while True:
        page = await node.call("GET", SEARCH, status=200, params=query)
        offsets += [record["offset"] for record in page["records"]]
        if page["cursor"] is None:
            return offsets
        query["cursor"] = page["cursor"]


def order(number: int) -> dict[str, Any]:
    value = {"user": f"u{number % 7}", "price": (number * 37) % 101, "paid": number % 2 == 0}
    return {"key": f"k{number % 10}", "value": json.dumps(value), "headers": {"kind": "order"}}


ORDERS = [order(number) for number in range(60)]


def price(number: int) -> int:
    return json.loads(ORDERS[number]["value"])["price"]


async def test_an_index_is_made_altered_listed_and_dropped(node) -> None:
    await node.create("orders")
    made = await put(node, "by-key", "key")
    assert made.items() >= {"name": "by-key", "kind": "btree", "on": "key"}.items()
    assert made["state"] in ("building", "ready")
    assert 0 <= made["coverage"] <= 1
    await put(node, "by-key", "key", status=200)
    altered = await put(node, "by-key", "header:kind", status=200)
    assert altered["on"] == "header:kind"
    await put(node, "few", "value:/user", kind="bloom")
    listed = await node.call("GET", INDEXES, status=200)
    assert [each["name"] for each in listed["indexes"]] == ["by-key", "few"]
    await ready(node, "by-key")
    await node.call("DELETE", f"{INDEXES}/by-key", status=204)
    for method in ("GET", "DELETE"):
        problem = await node.refused(method, f"{INDEXES}/by-key", "unknown_index")
        assert problem["status"] == 404
    await node.refused("GET", f"{SEARCH}?index=by-key&eq=a", "unknown_index")


async def test_what_makes_no_sense_is_refused(node) -> None:
    await node.create("orders")
    await put(node, "a", "value:/price")
    for path, body in (
        ("UPPER", {"kind": "btree", "on": "key"}),
        ("x", {"kind": "hash", "on": "key"}),
        ("x", {"kind": "btree"}),
        ("x", {"kind": "btree", "on": "keys"}),
        ("x", {"kind": "btree", "on": "value:no/slash"}),
        ("x", {"kind": "btree", "on": "header:"}),
        ("x", {"kind": "btree", "on": "key", "more": 1}),
    ):
        await node.refused("PUT", f"{INDEXES}/{path}", "invalid_request", json=body)
    for query in (
        "index=a",
        "eq=1",
        "index=a&eq=1&ge=2",
        "index=a&eq=1&prefix=2",
        "index=a&eq=1&cursor=nonsense",
        "index=a&eq=1&cursor=%C3%A4",
        "index=a&eq=1&limit=0",
        "index=a&eq=1&order=up",
        "index=a&eqq=1",
    ):
        await node.refused("GET", f"{SEARCH}?{query}", "invalid_request")
    body = {"kind": "btree", "on": "key"}
    await node.refused("PUT", "/v1/streams/none/indexes/a", "unknown_stream", json=body)
    await node.refused("GET", "/v1/streams/none/indexes", "unknown_stream")
    await node.refused("GET", "/v1/streams/none/search?index=a&eq=1", "unknown_stream")
    for number in range(15):
        await put(node, f"i{number}", "key")
    await node.refused("PUT", f"{INDEXES}/one-more", "invalid_request", json=body)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_search_finds_what_a_scan_finds(node, when: str) -> None:
    await node.create("orders", **SMALL)
    if when == "after":
        await append(node, ORDERS[:50])
    await put(node, "price", "value:/price")
    await put(node, "user", "value:/user")
    await put(node, "kind", "header:kind")
    await put(node, "key", "key")
    if when == "before":
        await append(node, ORDERS[:50])
    else:
        for name in ("price", "user", "kind", "key"):
            await ready(node, name)
    await append(node, ORDERS[50:])  # not covered yet
    numbers = list(range(60))
    by_price = sorted(numbers, key=lambda number: (price(number), number))
    middle = [number for number in by_price if 20 <= price(number) < 60]
    for limit in (7, 500):
        assert await find(node, index="key", eq="k3", limit=limit) == numbers[3::10]
        found = await find(node, index="key", eq="k3", limit=limit, order="desc")
        assert found == numbers[3::10][::-1]
        assert await find(node, index="user", eq='"u2"', limit=limit) == numbers[2::7]
        assert await find(node, index="kind", eq="order", limit=limit) == numbers
        assert await find(node, index="kind", eq="other", limit=limit) == []
        assert await find(node, index="price", ge=20, lt=60, limit=limit) == middle
        found = await find(node, index="price", ge="20", lt="60", limit=limit, order="desc")
        assert found == middle[::-1]
        assert await find(node, index="price", ge="-1e3", limit=limit) == by_price
        cheap = [number for number in by_price if price(number) < 20]
        assert await find(node, index="price", lt="20", limit=limit) == cheap
        by_user = sorted(numbers, key=lambda number: (number % 7, number))
        assert await find(node, index="user", prefix="u", limit=limit) == by_user
        assert await find(node, index="user", ge="u3", lt="u5", limit=limit) == [
            number for number in by_user if number % 7 in (3, 4)
        ]


async def test_a_cursor_belongs_to_its_search_and_definition(node) -> None:
    await node.create("orders")
    await append(node, ORDERS)
    await put(node, "key", "key")
    page = await node.call("GET", f"{SEARCH}?index=key&eq=k1&limit=2", status=200)
    cursor = page["cursor"]
    assert cursor == base64.urlsafe_b64encode(
        base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    ).decode().rstrip("=")
    await node.refused("GET", f"{SEARCH}?index=key&eq=k2&cursor={cursor}", "invalid_request")
    await put(node, "key", "header:kind", status=200)
    await put(node, "key", "key", status=200)
    await node.refused("GET", f"{SEARCH}?index=key&eq=k1&cursor={cursor}", "invalid_request")


async def test_a_bloom_index_answers_equality_alone(node) -> None:
    await node.create("orders", **SMALL)
    await put(node, "b", "value:/user", kind="bloom")
    for start in range(0, 60, 10):
        await append(node, ORDERS[start : start + 10])
        await append(node, [{"value": "x" * 9000}])
    found = await ready(node, "b")
    assert found["kind"] == "bloom"
    numbers = [number + number // 10 for number in range(60)]
    assert await find(node, index="b", eq="u2") == numbers[2::7]
    assert await find(node, index="b", eq="u2", order="desc", limit=3) == numbers[2::7][::-1]
    assert await find(node, index="b", eq="nobody") == []
    assert node.replica.filter_counts.skipped > 0
    await node.refused("GET", f"{SEARCH}?index=b&ge=a&lt=b", "invalid_request")


@pytest.mark.parametrize("index", [None, "btree", "bloom"])
async def test_the_newest_record_of_a_key(node, index: str | None) -> None:
    await node.create("orders", **SMALL)
    if index is not None:
        await put(node, "key", "key", kind=index)
    await append(node, ORDERS)
    for _ in range(6):
        await append(node, [{"value": "x" * 9000}])
    if index is not None:
        await ready(node, "key")
    found = await node.call("GET", f"{KEYS}/k3", status=200)
    assert (found["offset"], found["key"]) == (53, "k3")
    assert set(found) >= {"offset", "timestamp", "key", "value", "headers"}
    assert (await node.call("GET", f"{KEYS}/k3?as_of=52", status=200))["offset"] == 43
    assert (await node.call("GET", f"{KEYS}/k3?as_of=53", status=200))["offset"] == 53
    await node.refused("GET", f"{KEYS}/k3?as_of=2", "unknown_key")
    await node.refused("GET", f"{KEYS}/nobody", "unknown_key")
    await node.refused("GET", f"{KEYS}/k3?as_of=-1", "invalid_request")
    await append(node, [{"key": "k3", "value": None}])
    problem = await node.refused("GET", f"{KEYS}/k3?consistency=linearizable", "unknown_key")
    assert problem["deleted_at"] == 66
    assert (await node.call("GET", f"{KEYS}/k3?as_of=65", status=200))["offset"] == 53
    await node.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 50})
    await node.refused("GET", f"{KEYS}/k3?as_of=49", "offset_trimmed")
    await node.refused("GET", "/v1/streams/none/keys/k3", "unknown_stream")


async def test_keys_may_be_any_bytes(node) -> None:
    await node.create("orders")
    key = base64.b64encode(b"\xff/\x00 a").decode()
    await append(node, [{"key_b64": key, "value": "v"}, {"key": "", "value": "w"}])
    await put(node, "key", "key")
    path = f"{KEYS}/%FF%2F%00%20a"
    assert (await node.call("GET", path, status=200))["key_b64"] == key
    page = await node.call("GET", f"{SEARCH}?index=key&eq=%FF%2F%00%20a", status=200)
    assert [record["offset"] for record in page["records"]] == [0]
    page = await node.call("GET", f"{SEARCH}?index=key&eq=", status=200)
    assert [record["offset"] for record in page["records"]] == [1]


async def test_indexes_outlive_restarts_and_trims(node) -> None:
    await node.create("orders", **SMALL)
    await append(node, ORDERS)
    await put(node, "key", "key")
    await ready(node, "key")
    await node.restart()
    await append(node, [{"key": "k3", "value": "new"}])
    assert await find(node, index="key", eq="k3") == [3, 13, 23, 33, 43, 53, 60]
    await node.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 30})
    assert await find(node, index="key", eq="k3") == [33, 43, 53, 60]
    await ready(node, "key")
    await node.call("DELETE", "/v1/streams/orders", status=204)
    await node.create("orders")
    assert (await node.call("GET", INDEXES, status=200))["indexes"] == []


async def test_reads_by_key_skip_segments_without_it(node) -> None:
    await node.create("orders", **SMALL)
    for number in range(12):
        await append(node, [{"key": f"k{number}", "value": "x" * 9000}])
    counts = node.replica.filter_counts
    async with asyncio.timeout(10):
        while counts.skipped < 10:
            page = await node.read("orders", key="nobody")
            assert (page["records"], page["next_offset"]) == ([], 12)
            await asyncio.sleep(0.02)
    page = await node.read("orders", key="k7")
    assert [record["offset"] for record in page["records"]] == [7]
    before = counts.skipped
    page = await node.read("orders", key="k7", order="desc")
    assert [record["offset"] for record in page["records"]] == [7]
    assert counts.skipped > before
    page = await node.read("orders", key="nobody", order="desc")
    assert (page["records"], page["next_offset"]) == ([], 0)


async def test_every_node_answers_the_same(cluster) -> None:
    leader, *followers = cluster
    await leader.create("orders", **SMALL)
    await append(leader, ORDERS)
    await put(followers[0], "price", "value:/price")
    for node in cluster:
        level = {"consistency": "linearizable"}
        found = await find(node, index="price", ge=20, lt=60, limit=5, **level)
        assert [price(number) for number in found] == sorted(price(number) for number in found)
        assert len(found) == sum(20 <= price(number) < 60 for number in range(60))
    query: dict[str, Any] = {"index": "price", "ge": 0, "limit": 10}
    offsets = []
    for node in (*cluster, *cluster):
        page = await node.call("GET", SEARCH, status=200, params=query)
        offsets += [record["offset"] for record in page["records"]]
        query["cursor"] = page["cursor"]
    assert sorted(offsets) == list(range(60))
