from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pytest

from cute_logger.node.http.records import RECORDS_MAX
from cute_logger.node.http.tx import PARTS_MAX

TX = "/v1/tx"
KEY = {"Idempotency-Key": "invoice-7"}


@pytest.fixture
async def shop(node):
    """A node with three orders and no invoice."""
    await node.create("orders")
    await node.create("invoices", **{"max.message.bytes": 1024})
    await node.append("orders", "a", "b", "c")
    return node


def invoice(*values: str, **fields: Any) -> dict[str, Any]:
    return {"stream": "invoices", "records": [{"value": value} for value in values], **fields}


def commit(offset: int, **fields: Any) -> dict[str, Any]:
    return {"group": "billing", "stream": "orders", "offset": offset, **fields}


async def test_read_write_and_commit_are_one_entry(shop) -> None:
    path = "/v1/groups/billing/streams/orders"
    lease = await shop.call("POST", f"{path}/lease", status=200, json={"member": "m1"})
    body = {
        "appends": [
            invoice("for a", "for b", **{"if": {"offset": 0}}),
            {"stream": "orders", "records": [{"value": "d"}]},
        ],
        "commits": [commit(2, lease=lease["lease"])],
    }
    done = await shop.call("POST", TX, status=200, json=body)

    first, second = done["appends"]
    assert (first["stream"], first["first_offset"], first["last_offset"]) == ("invoices", 0, 1)
    assert (second["stream"], second["first_offset"]) == ("orders", 3)
    assert first["durability"] == "quorum"
    (committed,) = done["commits"]
    assert (committed["offset"], committed["high_watermark"], committed["lag"]) == (2, 4, 2)
    assert {done["index"], first["index"], second["index"], committed["index"]} == {
        shop.replica.applied_index
    }
    assert done["duplicate"] is False
    assert (await shop.call("GET", f"{path}/offset", status=200))["offset"] == 2
    values = [record["value"] for record in (await shop.read("invoices"))["records"]]
    assert values == ["for a", "for b"]


@pytest.mark.parametrize(
    ("appends", "commits", "code", "part"),
    [
        ([invoice("x"), invoice("y", **{"if": {"offset": 0}})], [], "condition_failed", 1),
        ([invoice("x"), invoice("y") | {"stream": "nowhere"}], [], "unknown_stream", 1),
        ([invoice("x"), invoice("y" * 2000)], [], "record_too_large", 1),
        (
            [invoice("x", producer={"id": 1, "epoch": 0, "sequence": 3})],
            [],
            "producer_expired",
            0,
        ),
        ([invoice("x")], [commit(4)], "beyond_high_watermark", 0),
        ([invoice("x")], [commit(1, lease=9)], "lease_lost", 0),
        ([invoice("x")], [commit(1), commit(0) | {"stream": "nowhere"}], "unknown_stream", 1),
    ],
)
async def test_one_part_that_is_refused_refuses_all(shop, appends, commits, code, part) -> None:
    body = {"appends": appends, "commits": commits}
    problem = await shop.refused("POST", TX, code, json=body, headers=KEY)
    where = "commits" if code in ("beyond_high_watermark", "lease_lost") or len(commits) > 1 else ""
    assert (problem["part"], problem["part_index"]) == (where or "appends", part)
    assert (await shop.read("invoices"))["high_watermark"] == 0
    await shop.refused("GET", "/v1/groups/billing", "unknown_group")


async def test_a_repeat_answers_the_first_receipts(shop) -> None:
    body = {"appends": [invoice("x", **{"if": {"offset": 0}})], "commits": [commit(3)]}
    first = await shop.call("POST", TX, status=200, json=body, headers=KEY)
    await shop.append("orders", "d")
    await shop.restart()
    repeat = await shop.call("POST", TX, status=200, json=body, headers=KEY)

    assert repeat["duplicate"] is True
    assert repeat["appends"] == [first["appends"][0] | {"duplicate": True}]
    assert repeat["commits"] == first["commits"]
    assert repeat["index"] == first["index"]
    assert (await shop.read("invoices"))["high_watermark"] == 1
    other = {"appends": [invoice("y")]}
    await shop.refused("POST", TX, "idempotency_conflict", json=other, headers=KEY)


async def test_records_are_taken_as_msgpack(shop) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    body = msgspec.msgpack.encode(
        {"appends": [{"stream": "invoices", "records": [{"value": b"\xff"}]}]}
    )
    async with shop.http.post(shop.url(TX), data=body, headers=headers) as response:
        done = msgspec.msgpack.decode(await response.read())
    assert (done["appends"][0]["count"], done["commits"]) == (1, [])
    assert (await shop.read("invoices"))["records"][0]["value_b64"] == "/w=="


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"appends": [], "commits": []}, "body"),
        ({"append": []}, "append"),
        ({"appends": [{"records": [{"value": "x"}]}]}, "appends[0].stream"),
        ({"appends": [invoice()]}, "appends[0].records"),
        ({"appends": [invoice("x"), invoice("y") | {"stream": "No"}]}, "appends[1].stream"),
        ({"appends": [invoice("x", **{"if": {"key": "k"}})]}, "appends[0].if.key"),
        (
            {"appends": [{"stream": "invoices", "records": [{"key": "k"}]}]},
            "appends[0].records[0].value",
        ),
        ({"commits": [commit(-1)]}, "commits[0].offset"),
        ({"commits": [commit(1), commit(2)]}, "commits[1].stream"),
        ({"commits": [commit(1) | {"group": "No"}]}, "commits[0].group"),
        ({"appends": [invoice("x")] * (PARTS_MAX + 1)}, "appends"),
        ({"appends": [invoice(*["x"] * (RECORDS_MAX // 2))] * 3}, "appends"),
    ],
)
async def test_what_is_wrong_is_named(shop, body, field) -> None:
    problem = await shop.refused("POST", TX, "invalid_request", json=body)
    assert problem["field"] == field
    assert (await shop.read("invoices"))["high_watermark"] == 0


async def test_streams_of_the_system_are_not_written(shop) -> None:
    body = {"appends": [invoice("x") | {"stream": "_system"}]}
    problem = await shop.refused("POST", TX, "forbidden", json=body)
    assert (problem["part"], problem["part_index"]) == ("appends", 0)


async def test_all_appends_together_are_bounded(shop) -> None:
    problem = await shop.refused("POST", TX, "batch_too_large", **megabytes(5))
    assert problem["limit_bytes"] == 4 << 20
    assert (await shop.read("orders"))["high_watermark"] == 3
    done = await shop.call("POST", TX, status=200, **megabytes(4))
    assert [each["first_offset"] for each in done["appends"]] == [3, 4, 5, 6]


def megabytes(count: int) -> dict[str, Any]:
    """A request with so many appends of a megabyte."""
    part = {"stream": "orders", "records": [{"value": "x" * 1_000_000}]}
    body = io.BytesIO(json.dumps({"appends": [part] * count}).encode())
    return {"data": body, "headers": {"Content-Type": "application/json"}}


async def test_a_waiting_reader_of_each_stream_is_woken(shop) -> None:
    await shop.call("POST", TX, status=200, json={"appends": [invoice("x")]})
    page = await shop.read("invoices", offset=0, wait_ms=5000)
    assert page["high_watermark"] == 1
