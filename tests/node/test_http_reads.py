from __future__ import annotations

import asyncio

import pytest

RECORDS = "/v1/streams/orders/records"


@pytest.fixture
async def orders(node):
    await node.create("orders")
    return node


async def offsets(node, **query) -> list[int]:
    return [record["offset"] for record in (await node.read("orders", **query))["records"]]


async def test_a_page_says_all_that_the_contract_names(orders) -> None:
    receipt = await orders.append("orders", "a")

    page = await orders.read("orders")

    assert page == {
        "stream": "orders",
        "records": page["records"],
        "next_offset": 1,
        "log_start_offset": 0,
        "high_watermark": 1,
        "index": receipt["index"],
        "term": receipt["term"],
        "lag_ms": 0,
    }


async def test_an_empty_stream_says_why_nothing_came(orders) -> None:
    page = await orders.read("orders")
    assert page["records"] == []
    assert page["next_offset"] == 0
    assert page["why"] == "end_of_log"


async def test_limit_cuts_within_a_batch_and_next_offset_goes_on(orders) -> None:
    await orders.append("orders", *"abcde")

    first = await orders.read("orders", limit=2)
    second = await orders.read("orders", limit=2, offset=first["next_offset"])

    assert [record["value"] for record in first["records"]] == ["a", "b"]
    assert [record["value"] for record in second["records"]] == ["c", "d"]
    assert second["next_offset"] == 4


async def test_a_read_begins_in_the_middle_of_a_batch(orders) -> None:
    await orders.append("orders", *"abc")
    assert await offsets(orders, offset=2) == [2]


async def test_a_read_crosses_batches(orders) -> None:
    for value in "abc":
        await orders.append("orders", value)
    assert await offsets(orders, offset=1) == [1, 2]


@pytest.mark.parametrize(("offset", "found"), [(-1, [2]), (-2, [1, 2]), (-99, [0, 1, 2])])
async def test_a_negative_offset_counts_from_the_tail(orders, offset, found) -> None:
    await orders.append("orders", *"abc")
    assert await offsets(orders, offset=offset) == found


async def test_until_is_exclusive(orders) -> None:
    await orders.append("orders", *"abcd")
    page = await orders.read("orders", offset=1, until=3)
    assert [record["offset"] for record in page["records"]] == [1, 2]
    assert page["next_offset"] == 3


async def test_an_empty_range_says_so(orders) -> None:
    await orders.append("orders", *"abcd")
    page = await orders.read("orders", offset=3, until=2, wait_ms=5000)
    assert page["why"] == "until"
    assert page["next_offset"] == 3


async def test_a_timestamp_finds_the_first_record_at_or_after_it(orders) -> None:
    records = [{"value": "a", "timestamp": at} for at in (100, 200, 300)]
    await orders.call("POST", RECORDS, status=200, json={"records": records})

    assert await offsets(orders, timestamp=200) == [1, 2]
    assert await offsets(orders, timestamp=201) == [2]
    assert await offsets(orders, timestamp=0) == [0, 1, 2]
    assert (await orders.read("orders", timestamp=2**62))["why"] == "end_of_log"


async def test_a_key_filters_exactly(orders) -> None:
    records = [{"key": key, "value": "a"} for key in ("c1", "c10", None, "C1", "c1")]
    await orders.call("POST", RECORDS, status=200, json={"records": records})

    assert await offsets(orders, key="c1") == [0, 4]
    assert await offsets(orders, key="c1", limit=1) == [0]


async def test_a_filtered_read_that_finds_nothing_says_how_far_it_looked(orders) -> None:
    await orders.append("orders", *"abc")
    page = await orders.read("orders", key="nobody")
    assert page["records"] == []
    assert page["why"] == "filtered"
    assert page["next_offset"] == 3


async def test_a_filtered_read_scans_no_more_than_max_bytes(orders) -> None:
    for _ in range(4):
        await orders.append("orders", "x" * 1000)
    page = await orders.read("orders", key="nobody", max_bytes=2500)
    assert page["why"] == "filtered"
    assert page["next_offset"] == 2


async def test_max_bytes_bounds_a_page_of_many_batches(orders) -> None:
    for _ in range(4):
        await orders.append("orders", "x" * 1000)
    assert await offsets(orders, max_bytes=2500) == [0, 1]


async def test_max_bytes_cuts_a_batch_but_leaves_one_record(orders) -> None:
    await orders.append("orders", *["x" * 1000] * 4)

    assert await offsets(orders, max_bytes=2500) == [0, 1]
    assert await offsets(orders, max_bytes=2500, offset=2) == [2, 3]
    assert await offsets(orders, max_bytes=1) == [0]


async def test_a_long_poll_ends_with_the_record_it_waits_for(orders) -> None:
    poll = asyncio.ensure_future(orders.read("orders", wait_ms=30_000))
    await waiting(orders)
    await orders.append("orders", "a")

    async with asyncio.timeout(5):
        page = await poll

    assert [record["value"] for record in page["records"]] == ["a"]


async def test_a_long_poll_answers_empty_when_its_time_is_over(orders) -> None:
    page = await orders.read("orders", wait_ms=50)
    assert page["why"] == "end_of_log"


async def test_a_filtered_long_poll_waits_for_a_match(orders) -> None:
    poll = asyncio.ensure_future(orders.read("orders", wait_ms=30_000, key="c7"))
    await waiting(orders)
    await orders.append("orders", "other")
    body = {"records": [{"key": "c7", "value": "mine"}]}
    await orders.call("POST", RECORDS, status=200, json=body)

    async with asyncio.timeout(5):
        page = await poll

    assert [record["offset"] for record in page["records"]] == [1]
    assert orders.context.answers.taken == 0


async def test_a_long_poll_ends_when_its_client_goes(orders) -> None:
    poll = asyncio.ensure_future(orders.read("orders", wait_ms=60_000))
    await waiting(orders)

    poll.cancel()

    await idle(orders)


async def test_a_linearizable_read_shows_what_was_acknowledged(orders) -> None:
    await orders.append("orders", "a")
    assert await offsets(orders, consistency="linearizable") == [0]


async def test_a_bounded_read_is_answered_within_its_bound(orders) -> None:
    await orders.append("orders", "a")
    assert await offsets(orders, consistency="bounded", max_lag_ms=10_000) == [0]


async def test_a_session_token_waits_until_its_index_is_applied(orders) -> None:
    receipt = await orders.append("orders", "a")
    assert await offsets(orders, after=receipt["index"]) == [0]


async def test_streams_can_be_asked_for_as_new_as_a_token(orders) -> None:
    receipt = await orders.append("orders", "a")
    info = await orders.call(
        "GET", "/v1/streams/orders", status=200, params={"after": receipt["index"]}
    )
    assert info["high_watermark"] == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("offset=abc", "offset"),
        ("offset=1.0", "offset"),
        ("offset=1e3", "offset"),
        ("offset=%2B1", "offset"),
        ("offset=" + "9" * 40, "offset"),
        ("offset=1&offset=2", "offset"),
        ("offset=1&timestamp=2", "timestamp"),
        ("timestamp=-1", "timestamp"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("max_bytes=0", "max_bytes"),
        ("max_bytes=8388609", "max_bytes"),
        ("wait_ms=60001", "wait_ms"),
        ("until=-1", "until"),
        ("order=up", "order"),
        ("consistency=eventual", "consistency"),
        ("consistency=bounded", "max_lag_ms"),
        ("max_lag_ms=5", "max_lag_ms"),
        ("after=x", "after"),
        ("redirect=2", "redirect"),
        ("ofset=1", "ofset"),
    ],
)
async def test_a_parameter_that_is_not_as_agreed_is_refused_by_its_name(
    orders, query, field
) -> None:
    problem = await orders.refused("GET", f"{RECORDS}?{query}", "invalid_request")
    assert problem["field"] == field


async def test_an_unknown_parameter_names_the_nearest(orders) -> None:
    problem = await orders.refused("GET", f"{RECORDS}?max_byte=1", "invalid_request")
    assert problem["nearest"] == "max_bytes"


async def test_an_offset_beyond_the_high_watermark_says_where_that_is(orders) -> None:
    await orders.append("orders", "a")
    problem = await orders.refused("GET", f"{RECORDS}?offset=2", "beyond_high_watermark")
    assert problem["status"] == 416
    assert problem["high_watermark"] == 1


async def waiting(node) -> None:
    """Return once a read waits on the server."""
    await node.until(lambda: bool(node.context.polls))


async def idle(node) -> None:
    await node.until(lambda: not node.context.polls and not node.context.under_way)
