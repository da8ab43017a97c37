"""Records are removed by hand or by age, bytes and count, and whoever comes too late is told so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cute_logger.client import AsyncClient, BeyondHighWatermark, Client, Gap, OffsetTrimmed

STREAM = "/v1/streams/orders"
RECORDS = f"{STREAM}/records"
TRIM = f"{STREAM}/trim"
SEGMENT_BYTES = 16 * 1024
VALUE = "x" * 5000
"""Three batches of one such record fit into a segment."""


async def fill(node, count: int, **config: Any) -> None:
    await node.create("orders", **{"segment.bytes": SEGMENT_BYTES, **config})
    for _ in range(count):
        await node.append("orders", VALUE)


async def trim(node, before: int) -> int:
    answer = await node.call("POST", TRIM, status=200, json={"before": before})
    assert list(answer) == ["log_start_offset"]
    return answer["log_start_offset"]


async def test_a_trim_moves_the_log_start_and_never_back(node) -> None:
    await fill(node, 10)
    size = (await node.call("GET", STREAM, status=200))["bytes"]
    assert await trim(node, 4) == 4
    assert await trim(node, 2) == 4
    assert await trim(node, 0) == 4

    info = await node.call("GET", STREAM, status=200)
    assert (info["log_start_offset"], info["high_watermark"], info["segments"]) == (4, 10, 3)
    assert info["bytes"] == size * 7 // 10
    page = await node.read("orders")
    assert [record["offset"] for record in page["records"]] == [4, 5, 6, 7, 8, 9]
    assert page["log_start_offset"] == 4


async def test_a_read_below_the_start_is_gone_with_both_ends(node) -> None:
    await fill(node, 10)
    await trim(node, 4)
    for offset in (0, 3):
        problem = await node.refused("GET", f"{RECORDS}?offset={offset}", "offset_trimmed")
        assert (problem["status"], problem["log_start_offset"], problem["high_watermark"]) == (
            410,
            4,
            10,
        )
    assert (await node.read("orders", offset=4))["records"][0]["offset"] == 4
    assert (await node.read("orders", offset=-100))["records"][0]["offset"] == 4
    assert (await node.read("orders", timestamp=0))["records"][0]["offset"] == 4


async def test_a_stream_may_be_trimmed_to_its_end_and_goes_on_there(node) -> None:
    await fill(node, 4)
    assert await trim(node, 4) == 4
    page = await node.read("orders")
    assert (page["records"], page["next_offset"], page["why"]) == ([], 4, "end_of_log")
    await node.restart()
    assert (await node.append("orders", "next"))["first_offset"] == 4
    info = await node.call("GET", STREAM, status=200)
    assert (info["log_start_offset"], info["segments"]) == (4, 1)
    assert info["bytes"] < len(VALUE)


async def test_a_trim_beyond_the_high_watermark_is_refused(node) -> None:
    await fill(node, 2)
    problem = await node.refused("POST", TRIM, "beyond_high_watermark", json={"before": 3})
    assert (problem["status"], problem["high_watermark"]) == (416, 2)
    assert (await node.call("GET", STREAM, status=200))["log_start_offset"] == 0


@pytest.mark.parametrize(
    "body", [{}, {"before": -1}, {"before": "2"}, {"befor": 1}, {"before": 2.5}]
)
async def test_a_trim_without_a_good_offset_is_invalid(node, body) -> None:
    await fill(node, 3)
    await node.refused("POST", TRIM, "invalid_request", json=body)


async def test_only_clients_streams_that_exist_are_trimmed_and_altered(node) -> None:
    await node.refused("POST", TRIM, "unknown_stream", json={"before": 0})
    await node.refused("PATCH", STREAM, "unknown_stream", json={"config": {}})
    await node.refused("POST", "/v1/streams/_own/trim", "forbidden", json={"before": 0})
    await node.refused("PATCH", "/v1/streams/_own", "forbidden", json={"config": {}})


async def test_a_patch_merges_and_answers_the_stream(node) -> None:
    await fill(node, 1, **{"max.message.bytes": 6000})
    changed = await node.call(
        "PATCH", STREAM, status=200, json={"config": {"retention.ms": "7d", "segment.ms": "1h"}}
    )
    assert changed["name"] == "orders"
    assert changed["high_watermark"] == 1
    assert changed["config"]["retention.ms"] == 7 * 86_400_000
    assert changed["config"]["segment.ms"] == 3_600_000
    assert changed["config"]["segment.bytes"] == SEGMENT_BYTES
    assert changed == await node.call("GET", STREAM, status=200)
    await node.restart()
    assert changed == await node.call("GET", STREAM, status=200)


async def test_an_altered_limit_holds_for_the_next_append(node) -> None:
    await fill(node, 1)
    await node.call("PATCH", STREAM, status=200, json={"config": {"max.message.bytes": 1000}})
    problem = await node.refused(
        "POST", RECORDS, "record_too_large", json={"records": [{"value": VALUE}]}
    )
    assert problem["limit_bytes"] == 1000


async def test_a_patch_that_cannot_be_had_changes_nothing(node) -> None:
    await fill(node, 1)
    before = await node.call("GET", STREAM, status=200)
    for config, code, field in (
        ({"retention.ms": 1, "immutable": True}, "invalid_request", "config.retention.ms"),
        ({"retention.ms": 1, "segment.bytes": 1}, "invalid_request", "config.segment.bytes"),
        ({"retention.mss": 1}, "invalid_request", "config.retention.mss"),
    ):
        problem = await node.refused("PATCH", STREAM, code, json={"config": config})
        assert problem["field"] == field
    await node.refused("PATCH", STREAM, "invalid_request", json={})
    assert before == await node.call("GET", STREAM, status=200)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("retention.records", 4), ("retention.bytes", "30KB"), ("retention.ms", "200ms")],
)
async def test_retention_removes_what_is_not_kept(start_node, setting, value) -> None:
    node = await start_node(retention_period=100)
    await fill(node, 10)
    assert (await node.call("GET", STREAM, status=200))["log_start_offset"] == 0
    await node.call("PATCH", STREAM, status=200, json={"config": {setting: value}})
    await node.until(lambda: node.replica.stream("orders").log_start_offset > 0)
    await node.refused("GET", f"{RECORDS}?offset=0", "offset_trimmed")
    assert 1 <= len((await node.read("orders"))["records"]) <= 7


async def test_any_node_trims_and_alters(cluster) -> None:
    leader, follower, other = cluster
    await fill(follower, 7)
    assert await trim(follower, 5) == 5
    changed = await other.call(
        "PATCH", STREAM, status=200, json={"config": {"retention.records": 2}}
    )
    assert changed["config"]["retention.records"] == 2
    infos = [
        await node.call("GET", f"{STREAM}?consistency=linearizable", status=200)
        for node in (leader, follower, other)
    ]
    assert infos[0] == infos[1] == infos[2]
    assert infos[0]["log_start_offset"] == 5
    problem = await follower.refused("POST", TRIM, "beyond_high_watermark", json={"before": 8})
    assert problem["high_watermark"] == 7


async def test_a_tail_that_a_trim_overtakes_raises_a_gap(node) -> None:
    await fill(node, 9)
    async with AsyncClient([node.config.http_url]) as log:
        pages = log.tail("orders", 0)
        assert (await anext(pages)).offset == 0
        resumed = log.tail("orders", 1)
        skipping = log.tail("orders", 1, on_gap="skip")
        assert await log.trim("orders", 6) == 6
        with pytest.raises(Gap) as gap:
            await anext(resumed)
        assert (gap.value.start, gap.value.end, gap.value.high_watermark) == (1, 6, 9)
        assert (await anext(skipping)).offset == 6
        for tail in (pages, resumed, skipping):
            await tail.aclose()


async def test_the_clients_alter_and_trim(node) -> None:
    await fill(node, 5)
    async with AsyncClient([node.config.http_url]) as log:
        info = await log.alter_stream("orders", {"retention.ms": "1h"})
        assert info.config["retention.ms"] == 3_600_000
        assert await log.trim("orders", 2) == 2
        with pytest.raises(BeyondHighWatermark):
            await log.trim("orders", 6)
        with pytest.raises(OffsetTrimmed):
            await log.read("orders", 1)
        with pytest.raises(ValueError, match="before"):
            await log.trim("orders", -1)

    def in_thread() -> None:
        with Client([node.config.http_url]) as log:
            assert log.alter_stream("orders", {"retention.ms": -1}).config["retention.ms"] == -1
            assert log.trim("orders", 3) == 3

    await asyncio.to_thread(in_thread)
