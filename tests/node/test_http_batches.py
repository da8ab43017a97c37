"""`application/vnd.cute.batch`: stored batches on the wire as they are, both ways."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import lz4.frame
import msgspec
import pytest
from crc32c import crc32c

from cute_logger.node.http import sent_batch
from cute_logger.storage import Batch, Record, build_batch, encode_records, parse_batch
from cute_logger.storage.codec import CODECS, _zstd, pack

RECORDS = "/v1/streams/orders/records"
BATCH = "application/vnd.cute.batch"
RAW = {"Content-Type": BATCH}
SOME = [
    Record(b"two apples " * 30, b"c7", {"trace": "a", "naïve": "☕"}, 1_700_000_000_000),
    Record(None, b"c7"),
    Record(b"\xff\x00" * 300),
    Record(b"", b"", {}, 5),
]
FIELDS = ("crc", "magic", "version", "codec", "size", "count", "span", "base_offset", "timestamp")
FIELDS += ("max_timestamp", "term", "index", "producer_id", "producer_epoch", "sequence", "chain")
HEADER = struct.Struct("<IHBBIIIQqqQQQIQ16s")


@pytest.fixture
async def orders(node):
    await node.create("orders")
    return node


def sent(records: list[Record] = SOME, codec: str = "none", **fields: Any) -> bytes:
    """A batch as a client builds it."""
    used, body = pack(CODECS[codec], encode_records(records))
    newest = max((r.timestamp for r in records if r.timestamp is not None), default=0)
    rest = {"count": len(records), "base_offset": 0, "timestamp": 0, "max_timestamp": newest}
    return bytes(build_batch(body, codec=used, **(rest | fields)).data)


def forged(raw: bytes = b"", *, body: bytes | None = None, **fields: Any) -> bytes:
    """`raw` with other header fields or another body, its size and checksum made to fit."""
    raw = raw or sent()
    header = dict(zip(FIELDS, HEADER.unpack_from(raw), strict=True))
    body = raw[96:] if body is None else body
    header |= {"size": 96 + len(body)} | fields
    rest = HEADER.pack(*header.values())[4:] + body
    return struct.pack("<I", fields.get("crc", crc32c(rest))) + rest


async def post(node, raw: bytes, path: str = RECORDS, **headers: str) -> dict[str, Any]:
    return await node.call("POST", path, status=200, data=raw, headers=RAW | headers)


async def get(node, query: str = "", status: int = 200) -> tuple[dict[str, str], list[Batch]]:
    headers = {"Accept": BATCH}
    async with node.http.get(node.url(RECORDS + query), headers=headers) as response:
        assert response.status == status, await response.text()
        assert response.content_type == BATCH
        raw = await response.read()
        batches, position = [], 0
        while position < len(raw):
            batches.append(parse_batch(raw, position))
            position += batches[-1].size
        return dict(response.headers), batches


# ---- append


@pytest.mark.parametrize("codec", CODECS)
async def test_a_batch_is_appended_as_its_client_packed_it(orders, codec: str) -> None:
    raw = sent(codec=codec)

    receipt = await post(orders, raw)

    assert receipt | {"timestamp": 0} == {
        "stream": "orders",
        "first_offset": 0,
        "last_offset": 3,
        "count": 4,
        "timestamp": 0,
        "term": receipt["term"],
        "index": receipt["index"],
        "duplicate": False,
        "durability": "quorum",
    }
    _, (batch,) = await get(orders)
    assert batch.codec == CODECS[codec]
    assert bytes(batch.body) == raw[96:]
    assert batch.max_timestamp == receipt["timestamp"] == batch.timestamp


async def test_readers_see_no_difference_to_json(orders) -> None:
    records = [{"key": "c7", "value": "apples", "headers": {"a": "b"}, "timestamp": 9}]
    records += [{"value": None}]
    await orders.call("POST", RECORDS, status=200, json={"records": records})
    await post(orders, sent([Record(b"apples", b"c7", {"a": "b"}, 9), Record(None)], "lz4"))
    page = await orders.read("orders")
    first, second = page["records"][:2], page["records"][2:]
    fields = [{k: v for k, v in r.items() if k not in ("offset", "timestamp")} for r in first]
    assert fields == [
        {k: v for k, v in r.items() if k not in ("offset", "timestamp")} for r in second
    ]
    assert [record["timestamp"] for record in (first[0], second[0])] == [9, 9]


async def test_the_condition_is_a_parameter(orders) -> None:
    await post(orders, sent(), RECORDS + "?if_offset=0")
    problem = await orders.refused(
        "POST", RECORDS + "?if_offset=0", "condition_failed", data=sent(), headers=RAW
    )
    assert problem["actual"] == 4
    problem = await orders.refused(
        "POST", RECORDS + "?if_offset=4", "invalid_request", json={"records": [{"value": "a"}]}
    )
    assert problem["field"] == "if_offset"


async def test_a_repeat_in_any_form_is_a_repeat(orders) -> None:
    """JSON first, then batches of each codec: the records are what counts."""
    producer = await orders.call("POST", "/v1/producers", status=200, json={})
    value = "apples " * 40
    body = {"records": [{"value": value, "key": "k"}], "producer": producer | {"sequence": 0}}
    first = await orders.call("POST", RECORDS, status=200, json=body)
    for codec in CODECS:
        raw = sent([Record(value.encode(), b"k")], codec, producer_id=producer["id"])
        assert await post(orders, raw) == first | {"duplicate": True}
    other = sent([Record(b"pears", b"k")], producer_id=producer["id"])
    await orders.refused("POST", RECORDS, "idempotency_conflict", data=other, headers=RAW)


async def test_an_idempotency_key_goes_with_a_batch(orders) -> None:
    first = await post(orders, sent(), **{"Idempotency-Key": "k"})
    again = await post(orders, sent(codec="zstd"), **{"Idempotency-Key": "k"})
    assert again == first | {"duplicate": True}


async def test_a_stream_compresses_a_batch_that_came_as_it_is(orders) -> None:
    change = {"config": {"compression.type": "zstd"}}
    await orders.call("PATCH", "/v1/streams/orders", status=200, json=change)
    for codec in ("none", "lz4"):
        await post(orders, sent(codec=codec))
    _, batches = await get(orders)
    assert [batch.codec for batch in batches] == [CODECS["zstd"], CODECS["lz4"]]
    assert batches[0].unpacked() == batches[1].unpacked() == encode_records(SOME)


async def test_any_node_takes_a_batch(cluster) -> None:
    _, follower, other = cluster
    await follower.create("orders")
    await post(follower, sent(codec="zstd"), RECORDS + "?if_offset=0")
    _, (batch,) = await get(follower)
    assert batch.codec == CODECS["zstd"]
    assert len((await other.read("orders", consistency="linearizable"))["records"]) == 4


def rows(*items: Any) -> bytes:
    return msgspec.msgpack.encode(list(items))


ROW = (b"k", b"v", None, None)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "body"),
    "half a header": (lambda: sent()[:95], "body"),
    "json": (lambda: b'{"records": [' + b" " * 100, "magic"),
    "another version": (lambda: forged(version=2), "version"),
    "cut": (lambda: sent()[:-1], "size"),
    "more behind it": (lambda: sent() + b"x", "size"),
    "two": (lambda: sent() * 2, "size"),
    "size below a header": (lambda: forged(size=95), "size"),
    "a flipped bit": (lambda: sent()[:-1] + bytes([sent()[-1] ^ 1]), "crc"),
    "a wrong checksum": (lambda: forged(crc=1), "crc"),
    "an unknown codec": (lambda: forged(codec=3), "codec"),
    "base offset": (lambda: forged(base_offset=1), "base_offset"),
    "timestamp": (lambda: forged(timestamp=-1), "timestamp"),
    "term": (lambda: forged(term=1), "term"),
    "index": (lambda: forged(index=1), "index"),
    "chain": (lambda: forged(chain=b"\1" * 16), "chain"),
    "no records": (lambda: forged(count=0, body=rows()), "count"),
    "a million records": (lambda: forged(count=10**6, span=10**6), "count"),
    "fewer records": (lambda: forged(count=3, span=3), "count"),
    "more records": (lambda: forged(count=5, span=5), "count"),
    "span 0": (lambda: forged(span=0), "span"),
    "another span": (lambda: forged(span=5), "span"),
    "no producer with a sequence": (lambda: forged(sequence=1), "producer_id"),
    "no producer with an epoch": (lambda: forged(producer_epoch=1), "producer_id"),
    "a producer beyond": (lambda: forged(producer_id=2**63), "producer_id"),
    "a sequence beyond": (lambda: forged(producer_id=1, sequence=2**64 - 1), "sequence"),
    "another max_timestamp": (lambda: forged(max_timestamp=7), "max_timestamp"),
    "a negative max_timestamp": (
        lambda: forged(sent([Record(b"a")]), max_timestamp=-1),
        "max_timestamp",
    ),
    "a negative timestamp": (
        lambda: forged(count=2, span=2, body=rows(ROW, (None, b"v", None, -1)), max_timestamp=0),
        "records[1].timestamp",
    ),
    "no array": (lambda: forged(body=msgspec.msgpack.encode({"a": 1})), "body"),
    "no body": (lambda: forged(body=b""), "body"),
    "bytes behind the records": (
        lambda: forged(sent([Record(b"a")]), body=rows(ROW) + b"\0"),
        "body",
    ),
    "a row of three": (lambda: forged(sent([Record(b"a")]), body=rows(ROW[:3])), "body"),
    "a text for a value": (
        lambda: forged(sent([Record(b"a")]), body=rows((None, "v", None, None))),
        "body",
    ),
    "a length in a longer form": (
        lambda: forged(sent([Record(b"a")]), body=b"\x91\x94\xc0\xc5\x00\x01a\xc0\xc0"),
        "body",
    ),
    "empty headers": (
        lambda: forged(sent([Record(b"a")]), body=rows((None, b"a", {}, None))),
        "body",
    ),
    "a name twice": (
        lambda: forged(
            sent([Record(b"a")]), body=b"\x91\x94\xc0\xc4\x01a\x82\xa1x\xa1y\xa1x\xa1z\xc0"
        ),
        "body",
    ),
    "headers that are no text": (
        lambda: forged(sent([Record(b"a")]), body=b"\x91\x94\xc0\xc4\x01a\x81\xa1x\xa1\xff\xc0"),
        "body",
    ),
    "a body that claims much": (
        lambda: forged(count=1, span=1, body=b"\xdd\xff\xff\xff\xff"),
        "count",
    ),
    "plain where a codec is named": (lambda: forged(codec=1), "body"),
    "two frames": (lambda: forged(sent(codec="zstd"), body=sent(codec="zstd")[96:] * 2), "body"),
    "a cut frame": (lambda: forged(sent(codec="lz4"), body=sent(codec="lz4")[96:-1]), "body"),
    "the other codec": (lambda: forged(sent(codec="lz4"), codec=1), "body"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_batch_that_is_wrong_in_any_way_is_refused_and_told_why(orders, name: str) -> None:
    build, field = HOSTILE[name]
    problem = await orders.refused("POST", RECORDS, "invalid_request", data=build(), headers=RAW)
    assert problem["field"] == field, problem["detail"]
    assert orders.replica.stream("orders").high_watermark == 0
    assert orders.context.bodies.taken == 0


async def test_limits_hold_for_what_a_batch_unpacks_to(orders) -> None:
    large = sent([Record(bytes(2 << 20))], "zstd")
    problem = await orders.refused("POST", RECORDS, "record_too_large", data=large, headers=RAW)
    assert problem["limit_bytes"] == 1 << 20
    for compress in (_zstd().compress, lz4.frame.compress):
        codec = 1 if compress is _zstd().compress else 2
        bomb = forged(codec=codec, count=1, span=1, body=compress(bytes(64 << 20)))
        problem = await orders.refused("POST", RECORDS, "batch_too_large", data=bomb, headers=RAW)
        assert problem["limit_bytes"] == 4 << 20


async def test_a_large_batch_is_looked_into_on_another_thread(orders, monkeypatch) -> None:
    monkeypatch.setattr(sent_batch, "INLINE_BYTES_MAX", 100)
    await asyncio.gather(*(post(orders, sent(codec=codec)) for codec in CODECS))
    assert len((await orders.read("orders"))["records"]) == 12


async def test_only_appends_take_batches(node) -> None:
    for method, path in (("PUT", "/v1/streams/orders"), ("POST", "/v1/tx")):
        problem = await node.refused(method, path, "invalid_request", data=sent(), headers=RAW)
        assert problem["field"] == "Content-Type"


# ---- read


async def test_stored_batches_come_as_they_are_with_the_facts_in_headers(orders) -> None:
    for codec in CODECS:
        await post(orders, sent(codec=codec))

    headers, batches = await get(orders)
    page = await orders.read("orders")

    machine = orders.replica._machine
    stored = machine.recent.read(machine.streams["orders"].id, 0, 1 << 20)
    assert [bytes(batch.data) for batch in batches] == [bytes(batch.data) for batch in stored]
    names = ("Next-Offset", "Log-Start-Offset", "High-Watermark", "Index", "Term", "Lag-Ms")
    for name in names:
        assert int(headers[f"Cute-{name}"]) == page[name.lower().replace("-", "_")], name
    assert headers["Cute-Offset"] == "0"
    assert "Cute-Why" not in headers


@pytest.mark.parametrize(
    ("query", "first", "next_offset", "bases"),
    [
        ("?offset=5", 5, 12, [4, 8]),
        ("?offset=-3", 9, 12, [8]),
        ("?offset=3&limit=1", 3, 4, [0]),
        ("?offset=3&limit=2", 3, 8, [0, 4]),
        ("?limit=4", 0, 4, [0]),
        ("?limit=5", 0, 8, [0, 4]),
        ("?until=5", 0, 5, [0, 4]),
        ("?until=8", 0, 8, [0, 4]),
        ("?offset=2&max_bytes=1", 2, 4, [0]),
        ("?offset=12", 12, 12, []),
        ("?offset=4&until=4", 4, 4, []),
    ],
)
async def test_an_answer_is_whole_batches_and_says_which_records_are_meant(
    orders, query: str, first: int, next_offset: int, bases: list[int]
) -> None:
    for _ in range(3):
        await post(orders, sent())
    headers, batches = await get(orders, query)
    assert int(headers["Cute-Offset"]) == first
    assert int(headers["Cute-Next-Offset"]) == next_offset
    assert [batch.base_offset for batch in batches] == bases
    if not bases:
        assert headers["Cute-Why"] == ("until" if "until" in query else "end_of_log")


async def test_a_read_of_batches_waits_for_one(orders) -> None:
    task = asyncio.create_task(get(orders, "?wait_ms=5000"))
    await orders.until(lambda: bool(orders.context.polls))
    await post(orders, sent())
    headers, batches = await task
    assert (headers["Cute-Offset"], headers["Cute-Next-Offset"]) == ("0", "4")
    assert len(batches) == 1


@pytest.mark.parametrize(("query", "field"), [("?key=c7", "key"), ("?order=desc", "order")])
async def test_what_does_not_go_with_batches_is_refused(orders, query: str, field: str) -> None:
    accept = {"Accept": f"{BATCH}, application/json;q=0.5"}
    problem = await orders.refused("GET", RECORDS + query, "invalid_request", headers=accept)
    assert problem["field"] == field


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (f"{BATCH}, application/msgpack;q=0.5", BATCH),
        (f"application/msgpack, {BATCH}", BATCH),
        (f"application/msgpack, {BATCH};q=0.5", "application/msgpack"),
        (f"{BATCH};q=0", "application/json"),
        (f"{BATCH.upper()}", BATCH),
    ],
)
async def test_accept_decides(orders, accept: str, content_type: str) -> None:
    headers = {"Accept": accept}
    async with orders.http.get(orders.url(RECORDS), headers=headers) as response:
        assert response.content_type == content_type


async def test_refusals_are_problems_whatever_is_accepted(orders) -> None:
    path = RECORDS + "?offset=9"
    problem = await orders.refused("GET", path, "beyond_high_watermark", headers={"Accept": BATCH})
    assert problem["high_watermark"] == 0
