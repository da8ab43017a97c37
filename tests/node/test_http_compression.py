from __future__ import annotations

import json
import random

import pytest

from cute_logger.node.http import compression
from cute_logger.storage.codec import CODEC_NONE, CODECS

RECORDS = "/v1/streams/orders/records"
TEXT = "two apples and a pear, " * 20


def codecs(node, stream: str = "orders") -> list[int]:
    """The codecs of the stream's batches."""
    machine = node.replica._machine
    return [batch.codec for batch in machine.recent.read(machine.streams[stream].id, 0, 1 << 30)]


@pytest.mark.parametrize("name", ["zstd", "lz4"])
async def test_a_stream_compresses_what_arrives_and_shows_it_as_it_was(node, name: str) -> None:
    await node.create("plain")
    await node.create("orders", **{"compression.type": name})

    receipts = [await node.append(stream, TEXT, None, TEXT) for stream in ("plain", "orders")]

    assert codecs(node) == [CODECS[name]]
    assert codecs(node, "plain") == [CODEC_NONE]
    pages = [await node.read(stream) for stream in ("plain", "orders")]
    values = [[record["value"] for record in page["records"]] for page in pages]
    assert values[0] == values[1] == [TEXT, None, TEXT]
    assert pages[0].keys() == pages[1].keys()
    assert receipts[0].keys() == receipts[1].keys()


async def test_what_does_not_shrink_stays_as_it_is(node) -> None:
    await node.create("orders", **{"compression.type": "zstd"})
    await node.append("orders", "small")
    assert codecs(node) == [CODEC_NONE]


async def test_an_altered_setting_holds_for_new_batches(node) -> None:
    await node.create("orders")
    for name in ("none", "zstd", "lz4"):
        config = {"config": {"compression.type": name}}
        await node.call("PATCH", "/v1/streams/orders", status=200, json=config)
        await node.append("orders", TEXT)

    assert codecs(node) == [0, 1, 2]
    page = await node.read("orders")
    assert [record["value"] for record in page["records"]] == [TEXT] * 3
    await node.restart()
    assert await node.read("orders") | {"index": 0, "term": 0} == page | {"index": 0, "term": 0}


@pytest.mark.parametrize("by", ["key", "producer"])
async def test_a_repeat_under_another_setting_is_a_repeat(node, by: str) -> None:
    await node.create("orders")
    body = {"records": [{"value": TEXT}]}
    options = {"headers": {"Idempotency-Key": "k"}} if by == "key" else {}
    if by == "producer":
        producer = await node.call("POST", "/v1/producers", status=200, json={})
        body["producer"] = producer | {"sequence": 0}

    first = await node.call("POST", RECORDS, status=200, json=body, **options)
    for name in ("zstd", "lz4"):
        config = {"config": {"compression.type": name}}
        await node.call("PATCH", "/v1/streams/orders", status=200, json=config)
        again = await node.call("POST", RECORDS, status=200, json=body, **options)
        assert again == first | {"duplicate": True}


async def test_a_transaction_compresses_too(node) -> None:
    await node.create("orders", **{"compression.type": "lz4"})
    body = {"appends": [{"stream": "orders", "records": [{"value": TEXT}]}]}
    headers = {"Idempotency-Key": "k"}
    first = await node.call("POST", "/v1/tx", status=200, json=body, headers=headers)
    change = {"config": {"compression.type": "none"}}
    await node.call("PATCH", "/v1/streams/orders", status=200, json=change)
    again = await node.call("POST", "/v1/tx", status=200, json=body, headers=headers)
    assert codecs(node) == [CODECS["lz4"]]
    assert again["appends"] == [first["appends"][0] | {"duplicate": True}]


async def test_a_large_body_is_compressed_on_another_thread(node, monkeypatch) -> None:
    monkeypatch.setattr(compression, "INLINE_BYTES_MAX", 1000)
    await node.create("orders", **{"compression.type": "zstd"})
    await node.append("orders", TEXT * 10)
    assert codecs(node) == [CODECS["zstd"]]
    assert (await node.read("orders"))["records"][0]["value"] == TEXT * 10


async def test_a_page_is_as_large_as_what_its_batches_stand_for(node) -> None:
    """Some KB may hold a GiB: `max_bytes` counts what they unpack to, and so does the budget."""
    await node.create("orders", **{"compression.type": "zstd"})
    for _ in range(4):
        await node.append("orders", "a" * 100_000)

    one = await node.read("orders", max_bytes=150_000)
    more = await node.read("orders", max_bytes=250_000, offset=one["next_offset"])

    assert [record["offset"] for record in one["records"]] == [0]
    assert [record["offset"] for record in more["records"]] == [1, 2]
    assert node.context.answers.taken == 0


async def test_what_batches_unpack_to_counts_among_the_answers(node) -> None:
    await node.create("orders", **{"compression.type": "zstd"})
    await node.append("orders", "a" * 200_000)
    taken = node.config.answers_bytes_max - 100_000
    node.context.answers.take(taken)
    await node.refused("GET", RECORDS, "throttled")
    node.context.answers.give_back(taken)
    assert len((await node.read("orders"))["records"]) == 1
    assert node.context.answers.taken == 0


async def test_events_show_what_is_compressed(node) -> None:
    await node.create("orders", **{"compression.type": "lz4"})
    await node.append("orders", TEXT, TEXT)
    headers = {"Accept": "application/x-ndjson"}
    async with node.http.get(node.url(RECORDS + "?limit=2"), headers=headers) as response:
        events = [json.loads(line) async for line in response.content]
    records = [event for event in events if event["event"] == "record"]
    assert [record["value"] for record in records] == [TEXT, TEXT]


async def test_a_time_is_found_among_compressed_batches(node) -> None:
    await node.create("orders", **{"compression.type": "zstd"})
    stamps = random.Random(1).sample(range(10**15, 10**15 + 10**6), 50)
    records = [{"value": TEXT, "timestamp": stamp} for stamp in sorted(stamps)]
    await node.call("POST", RECORDS, status=200, json={"records": records})
    page = await node.read("orders", timestamp=sorted(stamps)[20], limit=1)
    assert page["records"][0]["offset"] == 20
