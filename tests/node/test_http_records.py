from __future__ import annotations

import asyncio
import base64

import msgspec
import pytest

RECORDS = "/v1/streams/orders/records"


@pytest.fixture
async def orders(node):
    await node.create("orders", **{"max.message.bytes": "1MiB"})
    return node


async def test_a_receipt_says_where_the_batch_is(orders) -> None:
    receipt = await orders.append("orders", "a", "b")

    assert receipt == {
        "stream": "orders",
        "first_offset": 0,
        "last_offset": 1,
        "count": 2,
        "timestamp": receipt["timestamp"],
        "term": orders.replica.term,
        "index": orders.replica.applied_index,
        "duplicate": False,
        "durability": "quorum",
    }
    assert receipt["timestamp"] > 1_600_000_000_000


async def test_what_was_appended_is_what_is_read(orders) -> None:
    record = {"key": "c7", "value": "grün", "headers": {"trace": "1"}, "timestamp": 5}
    await orders.call("POST", RECORDS, status=200, json={"records": [record]})

    page = await orders.read("orders")

    assert page["records"] == [record | {"offset": 0}]


async def test_a_record_needs_no_key_no_headers_no_timestamp(orders) -> None:
    receipt = await orders.append("orders", "a")
    page = await orders.read("orders")
    assert page["records"] == [
        {
            "offset": 0,
            "timestamp": receipt["timestamp"],
            "key": None,
            "value": "a",
            "headers": {},
        }
    ]


async def test_a_null_value_is_a_tombstone_and_an_empty_one_is_not(orders) -> None:
    await orders.append("orders", None, "")
    page = await orders.read("orders")
    assert [record["value"] for record in page["records"]] == [None, ""]


async def test_bytes_that_are_no_text_travel_as_base64(orders) -> None:
    raw = base64.b64encode(b"\xff\x00").decode()
    await orders.call(
        "POST", RECORDS, status=200, json={"records": [{"key_b64": raw, "value_b64": raw}]}
    )

    (record,) = (await orders.read("orders"))["records"]

    assert record["key_b64"] == record["value_b64"] == raw
    assert "key" not in record
    assert "value" not in record


async def test_base64_of_text_comes_back_as_text(orders) -> None:
    await orders.call("POST", RECORDS, status=200, json={"records": [{"value_b64": "YQ=="}]})
    assert (await orders.read("orders"))["records"][0]["value"] == "a"


async def test_msgpack_carries_raw_bytes_both_ways(orders) -> None:
    body = {"records": [{"key": b"\xff", "value": b"\x00\x01"}, {"key": "k", "value": None}]}
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    async with orders.http.post(
        orders.url(RECORDS), data=msgspec.msgpack.encode(body), headers=headers
    ) as response:
        assert response.content_type == "application/msgpack"
        receipt = msgspec.msgpack.decode(await response.read())
    async with orders.http.get(orders.url(RECORDS), headers=headers) as response:
        page = msgspec.msgpack.decode(await response.read())

    assert receipt["count"] == 2
    assert [r["key"] for r in page["records"]] == [b"\xff", b"k"]
    assert [r["value"] for r in page["records"]] == [b"\x00\x01", None]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "records"),
        ({"records": []}, "records"),
        ({"records": [{}]}, "records[0].value"),
        ({"records": [{"key": "k"}]}, "records[0].value"),
        ({"records": [{"value": 1}]}, "records[0].value"),
        ({"records": [{"value": {"a": 1}}]}, "records[0].value"),
        ({"records": [{"value": "a"}, {"value": "b", "key": 7}]}, "records[1].key"),
        ({"records": [{"value": "a", "value_b64": "YQ=="}]}, "records[0].value_b64"),
        ({"records": [{"value": "a", "key": None, "key_b64": ""}]}, "records[0].key_b64"),
        ({"records": [{"value_b64": "?"}]}, "records[0].value_b64"),
        ({"records": [{"value_b64": None}]}, "records[0].value_b64"),
        ({"records": [{"value": "a", "timestamp": -1}]}, "records[0].timestamp"),
        ({"records": [{"value": "a", "timestamp": 1.5}]}, "records[0].timestamp"),
        ({"records": [{"value": "a", "timestamp": 2**63}]}, "records[0].timestamp"),
        ({"records": [{"value": "a", "headers": {"a": 1}}]}, "records[0].headers[…]"),
        ({"records": [{"value": "a", "headers": []}]}, "records[0].headers"),
        ({"records": [{"valeu": "a"}]}, "records[0].valeu"),
        ({"records": [{"value": "a"}] * 10_001}, "records"),
        ({"records": [{"value": "a"}], "if": {}}, "if"),
        ({"records": [{"value": "a"}], "if": {"offset": "0"}}, "if.offset"),
        ({"records": [{"value": "a"}], "if": {"offset": -1}}, "if.offset"),
        ({"records": [{"value": "a"}], "producer": {"id": 1, "epoch": 0}}, "producer.sequence"),
        (
            {"records": [{"value": "a"}], "producer": {"id": 1, "epoch": 2**32, "sequence": 0}},
            "producer.epoch",
        ),
        ({"record": [{"value": "a"}]}, "record"),
        ([], "body"),
        ("records", "body"),
        (None, "body"),
    ],
)
async def test_a_body_that_is_not_as_agreed_is_refused_by_its_field(orders, body, field) -> None:
    problem = await orders.refused("POST", RECORDS, "invalid_request", json=body)

    assert problem["field"] == field
    assert (await orders.read("orders"))["high_watermark"] == 0


async def test_ten_thousand_records_are_one_batch(orders) -> None:
    receipt = await orders.append("orders", *["a"] * 10_000)
    assert (receipt["first_offset"], receipt["last_offset"]) == (0, 9_999)


async def test_if_offset_appends_at_that_offset_only(orders) -> None:
    body = {"records": [{"value": "a"}], "if": {"offset": 0}}
    await orders.call("POST", RECORDS, status=200, json=body)

    problem = await orders.refused("POST", RECORDS, "condition_failed", json=body)

    assert problem["actual"] == 1
    assert problem["status"] == 412


async def test_of_two_racing_conditional_appends_one_wins(orders) -> None:
    async def attempt() -> int:
        body = {"records": [{"value": "a"}], "if": {"offset": 0}}
        async with orders.http.post(orders.url(RECORDS), json=body) as response:
            return response.status

    assert sorted(await asyncio.gather(*(attempt() for _ in range(8)))) == [200] + [412] * 7


async def test_an_idempotency_key_appends_once(orders) -> None:
    key = {"Idempotency-Key": "order/7"}
    first = await orders.append("orders", "a", headers=key)
    again = await orders.append("orders", "a", headers=key)

    assert again == first | {"duplicate": True}
    assert (await orders.read("orders"))["high_watermark"] == 1


async def test_an_idempotency_key_of_other_records_conflicts(orders) -> None:
    key = {"Idempotency-Key": "order-7"}
    await orders.append("orders", "a", headers=key)
    await orders.refused(
        "POST", RECORDS, "idempotency_conflict", json={"records": [{"value": "b"}]}, headers=key
    )


@pytest.mark.parametrize("key", ["", "a b", "ä", "k" * 257])
async def test_an_idempotency_key_is_visible_ascii(orders, key) -> None:
    problem = await orders.refused(
        "POST",
        RECORDS,
        "invalid_request",
        json={"records": [{"value": "a"}]},
        headers={"Idempotency-Key": key},
    )
    assert problem["field"] == "Idempotency-Key"


async def test_the_first_receipt_of_a_key_can_be_asked_for(orders) -> None:
    first = await orders.append("orders", "a", headers={"Idempotency-Key": "order/{7}"})

    found = await orders.call("GET", "/v1/streams/orders/idempotency/order%2F%7B7%7D", status=200)

    assert {**found, "duplicate": False} == first


async def test_an_unused_key_says_how_far_back_is_known(orders) -> None:
    problem = await orders.refused(
        "GET", "/v1/streams/orders/idempotency/nobody", "unknown_idempotency_key"
    )
    assert isinstance(problem["window_start"], int)


async def test_a_producers_batches_are_appended_once_and_in_order(orders) -> None:
    producer = await orders.call("POST", "/v1/producers", status=200, json={})

    def body(sequence: int, epoch: int = 0) -> dict[str, object]:
        stamp = producer | {"sequence": sequence, "epoch": epoch}
        return {"records": [{"value": f"{sequence}"}], "producer": stamp}

    first = await orders.call("POST", RECORDS, status=200, json=body(0))
    again = await orders.call("POST", RECORDS, status=200, json=body(0))
    assert again == first | {"duplicate": True}
    gap = await orders.refused("POST", RECORDS, "out_of_order_sequence", json=body(2))
    assert gap["expected"] == 1
    await orders.refused("POST", RECORDS, "producer_fenced", json=body(1, epoch=7))


async def test_a_producer_nobody_knows_is_expired(orders) -> None:
    body = {
        "records": [{"value": "a"}],
        "producer": {"id": 2**63 - 1, "epoch": 0, "sequence": 5},
    }
    await orders.refused("POST", RECORDS, "producer_expired", json=body)


async def test_a_stream_nobody_made_takes_no_records(node) -> None:
    await node.refused("POST", RECORDS, "unknown_stream", json={"records": [{"value": "a"}]})


@pytest.mark.parametrize("value", ["0", "60001", "abc", "1.5", "", "-1"])
async def test_a_timeout_outside_of_its_range_is_refused(orders, value) -> None:
    problem = await orders.refused(
        "POST",
        f"{RECORDS}?timeout_ms={value}",
        "invalid_request",
        json={"records": [{"value": "a"}]},
    )
    assert problem["field"] == "timeout_ms"
    assert repr(value) in problem["detail"] or value in problem["detail"]
