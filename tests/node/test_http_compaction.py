"""Compacted and immutable streams, as their clients see them."""

from __future__ import annotations

import json
from typing import Any

from cute_logger.replication.compaction import pass_over

STREAM = "/v1/streams/state"
RECORDS = f"{STREAM}/records"
CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": "16KiB",
    "min.cleanable.dirty.ratio": 0.01,
}


async def put(node: Any, key: str, value: str | None) -> None:
    record = {"key": key, "value": value}
    await node.call("POST", RECORDS, status=200, json={"records": [record]})


async def compacted(start_node: Any) -> Any:
    """A node whose stream had 40 records of 2 KB on two keys, and has few now."""
    node = await start_node(compaction_period=100, compaction_bytes_per_s=1 << 30, cache_bytes=2000)
    await node.create("state", **CONFIG)
    for number in range(40):
        await put(node, f"k{number % 2}", "x" * 2000)

    def is_done() -> bool:
        machine = node.replica._machine
        is_due = pass_over(machine.streams["state"], 0) is not None
        return not is_due and not machine.compactions

    await node.until(is_done)
    return node


async def test_reads_go_over_holes(start_node) -> None:
    node = await compacted(start_node)
    every = await node.read("state")
    offsets = [record["offset"] for record in every["records"]]
    assert offsets[-1] == 39
    assert offsets == sorted(offsets)
    assert 10 > len(offsets) > 2
    assert every["next_offset"] == 40
    first = offsets[0]
    assert first > 5
    from_hole = await node.read("state", offset=3, limit=1)
    assert [record["offset"] for record in from_hole["records"]] == [first]
    assert from_hole["next_offset"] == first + 1
    inside = await node.read("state", offset=3, until=5)
    assert (inside["records"], inside["why"], inside["next_offset"]) == ([], "compacted", 5)
    last = await node.read("state", offset=-len(offsets) + 1)
    assert [record["offset"] for record in last["records"]] == offsets[1:]
    down = await node.read("state", order="desc")
    assert [record["offset"] for record in down["records"]] == offsets[::-1]


async def test_a_stream_of_events_goes_over_holes_without_a_gap(start_node) -> None:
    node = await compacted(start_node)
    headers = {"Accept": "application/x-ndjson"}
    async with node.http.get(node.url(f"{RECORDS}?offset=0&until=40"), headers=headers) as answer:
        kinds = [json.loads(line)["event"] async for line in answer.content]
    assert "gap" not in kinds
    assert kinds.count("record") == len((await node.read("state"))["records"])


async def test_a_compacted_stream_wants_keys(start_node) -> None:
    node = await start_node()
    await node.create("state", **CONFIG)
    body = {"records": [{"key": "a", "value": "b"}, {"value": "c"}]}
    problem = await node.refused("POST", RECORDS, "invalid_request", json=body)
    assert problem["field"] == "records"
    assert (await node.read("state"))["high_watermark"] == 0


async def test_an_immutable_stream_keeps_everything(start_node) -> None:
    node = await start_node()
    await node.create("state", immutable=True)
    await put(node, "k", "v")
    await node.refused("POST", f"{STREAM}/trim", "forbidden", json={"before": 1})
    await node.refused("DELETE", STREAM, "forbidden")
    for change in ({"immutable": False}, {"retention.ms": 5}, {"cleanup.policy": "compact"}):
        problem = await node.refused("PATCH", STREAM, "forbidden", json={"config": change})
        assert problem["field"] == f"config.{next(iter(change))}"
    assert len((await node.read("state"))["records"]) == 1


async def test_what_contradicts_itself_is_refused(start_node) -> None:
    node = await start_node()
    for config in ({"retention.ms": 5}, {"cleanup.policy": "compact"}):
        both = {"config": {"immutable": True, **config}}
        problem = await node.refused("PUT", STREAM, "invalid_request", json=both)
        assert problem["field"] == f"config.{next(iter(config))}"
