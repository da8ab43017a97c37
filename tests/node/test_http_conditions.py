"""Appends on the condition that a key is unchanged, or that an index finds nothing new."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

RECORDS = "/v1/streams/orders/records"
INDEX = "/v1/streams/orders/indexes/user"


def body(key: str, value: str = "v", **conditions: Any) -> dict[str, Any]:
    return {"records": [{"key": key, "value": value}], "if": conditions}


def unchanged(key: str, since: int) -> dict[str, Any]:
    return body(key, unchanged={"key": key, "since": since})


async def append(node, sent: dict[str, Any], **headers: str) -> int:
    receipt = await node.call("POST", RECORDS, status=200, json=sent, headers=headers)
    return receipt["first_offset"]


async def count(node, stream: str) -> int:
    page = await node.call("GET", f"/v1/streams/{stream}/records", status=200)
    return len(page["records"])


async def test_a_key_that_is_unchanged_since_it_was_read(node) -> None:
    await node.create("orders")
    assert await append(node, unchanged("a", -1)) == 0
    problem = await node.refused("POST", RECORDS, "condition_failed", json=unchanged("a", -1))
    assert (problem["status"], problem["actual"], problem["side_effect"]) == (412, 0, "none")
    assert await append(node, unchanged("b", -1)) == 1
    assert await append(node, unchanged("a", 0)) == 2
    problem = await node.refused("POST", RECORDS, "condition_failed", json=unchanged("a", 0))
    assert problem["actual"] == 2


async def test_the_key_of_the_condition_need_not_be_that_of_a_record(node) -> None:
    await node.create("orders")
    await append(node, body("other", unchanged={"key_b64": "/w==", "since": -1}))
    sent = {"records": [{"key_b64": "/w==", "value": "v"}]}
    await append(node, sent)
    refused = body("other", unchanged={"key_b64": "/w==", "since": -1})
    await node.refused("POST", RECORDS, "condition_failed", json=refused)


async def test_a_deleted_key_has_changed(node) -> None:
    await node.create("orders")
    await append(node, unchanged("a", -1))
    await append(node, {"records": [{"key": "a", "value": None}]})
    await node.refused("POST", RECORDS, "condition_failed", json=unchanged("a", 0))


@pytest.mark.parametrize("kind", ["btree", "bloom"])
async def test_nothing_that_an_index_would_find(node, kind: str) -> None:
    await node.create("orders")
    await node.call("PUT", INDEX, status=201, json={"kind": kind, "on": "value:/user"})

    def of_user(user: str, after: int) -> dict[str, Any]:
        condition = {"index": "user", "eq": user, "after": after}
        return body("k", json.dumps({"user": user}), no_match=condition)

    assert await append(node, of_user("ann", -1)) == 0
    assert await append(node, of_user("bob", -1)) == 1
    problem = await node.refused("POST", RECORDS, "condition_failed", json=of_user("ann", -1))
    assert problem["actual"] == 0
    assert await append(node, of_user("ann", 0)) == 2


async def test_all_conditions_have_to_hold(node) -> None:
    await node.create("orders")
    await append(node, unchanged("a", -1))
    both = body("b", unchanged={"key": "b", "since": -1}, offset=0)
    problem = await node.refused("POST", RECORDS, "condition_failed", json=both)
    assert problem["actual"] == 1
    await append(node, both | {"if": both["if"] | {"offset": 1}})


async def test_of_many_at_once_one_gets_the_key(cluster) -> None:
    leader, *_ = cluster
    await leader.create("orders")

    async def claim(number: int) -> int:
        node = cluster[number % 3]
        async with node.http.post(node.url(RECORDS), json=unchanged("key", -1)) as answer:
            return answer.status

    async def others(number: int) -> None:
        await append(leader, {"records": [{"key": f"other {number}", "value": "v"}]})

    many = [claim(number) for number in range(30)]
    statuses = await asyncio.gather(*many, *(others(number) for number in range(30)))
    assert sorted(statuses[:30]) == [200] + [412] * 29
    assert await count(leader, "orders") == 31


async def test_a_repeat_answers_the_first_receipt(node) -> None:
    await node.create("orders")
    sent, key = unchanged("a", -1), {"Idempotency-Key": "once"}
    first = await node.call("POST", RECORDS, status=200, json=sent, headers=key)
    again = await node.call("POST", RECORDS, status=200, json=sent, headers=key)
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert again["first_offset"] == first["first_offset"]


async def test_a_transaction_is_done_if_all_of_its_conditions_hold(node) -> None:
    await node.create("orders")
    await node.create("audit")
    parts = [
        {"stream": "audit", "records": [{"value": "x"}]},
        {"stream": "orders", **unchanged("a", -1)},
    ]
    await node.call("POST", "/v1/tx", status=200, json={"appends": parts})
    problem = await node.refused("POST", "/v1/tx", "condition_failed", json={"appends": parts})
    assert (problem["part"], problem["part_index"], problem["actual"]) == ("appends", 1, 0)
    assert await count(node, "audit") == 1


async def test_what_was_trimmed_away_is_not_known(node) -> None:
    await node.create("orders")
    for number in range(3):
        await append(node, {"records": [{"key": str(number), "value": "v"}]})
    await node.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 2})
    await node.refused("POST", RECORDS, "offset_trimmed", json=unchanged("new", 0))
    await append(node, unchanged("new", 1))


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ({}, "if"),
        ({"unchanged": {"since": 1}}, "if.unchanged.key"),
        ({"unchanged": {"key": "a", "key_b64": "YQ==", "since": 1}}, "if.unchanged.key_b64"),
        ({"unchanged": {"key": "a"}}, "if.unchanged"),
        ({"unchanged": {"key": "a", "since": -2}}, "if.unchanged.since"),
        ({"no_match": {"index": "user", "eq": "a"}}, "if.no_match"),
        ({"unchaged": {}}, "if"),
    ],
)
async def test_bad_conditions_are_named(node, condition: dict[str, Any], field: str) -> None:
    await node.create("orders")
    sent = {"records": [{"value": "v"}], "if": condition}
    problem = await node.refused("POST", RECORDS, "invalid_request", json=sent)
    assert problem["field"].startswith(field)


async def test_an_index_that_is_not_there(node) -> None:
    await node.create("orders")
    sent = body("a", no_match={"index": "nope", "eq": "a", "after": -1})
    await node.refused("POST", RECORDS, "unknown_index", json=sent)
