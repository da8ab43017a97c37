"""The client on the way of whole batches, at a real node; and downward."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from cute_logger.client import AsyncClient, ConditionFailed, OffsetTrimmed, Record
from cute_logger.storage.codec import CODECS

TEXT = b"two apples and a pear, " * 10


@pytest.fixture
async def log(node) -> AsyncIterator[AsyncClient]:
    async with AsyncClient([node.config.http_url]) as log:
        await log.create_stream("orders")
        yield log


def codecs(node) -> list[int]:
    machine = node.replica._machine
    batches = machine.recent.read(machine.streams["orders"].id, 0, 1 << 30)
    return [batch.codec for batch in batches]


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
async def test_what_is_produced_is_read(node, log, compression: str | None) -> None:
    sent = [Record(TEXT, b"c7", {"h": "☕"}, 5), Record(None, b"c7"), Record(b"")]
    receipt = await log.produce("orders", sent, compression=compression, if_offset=0)
    async with log.producer("orders", compression=compression) as producer:
        futures = [await producer.send(TEXT, timestamp=7) for _ in range(20)]
    assert [future.result() for future in futures] == [*range(3, 23)]

    assert set(codecs(node)) == {CODECS[compression or "none"]}
    for limit in (10, 10_000):
        records = await log.read("orders", limit=limit)
        assert [(r.value, r.key, dict(r.headers)) for r in records[:3]] == [
            (r.value, r.key, dict(r.headers)) for r in sent
        ]
        assert [r.timestamp for r in records[:4]] == [5, receipt.timestamp, receipt.timestamp, 7]
        assert [r.offset for r in records] == [*range(min(23, limit))]


async def test_conditions_and_keys_go_with_batches(node, log) -> None:
    first = await log.produce("orders", TEXT, idempotency_key="k", compression="zstd")
    again = await log.produce("orders", TEXT, idempotency_key="k", compression="lz4")
    assert (again.first_offset, again.duplicate) == (first.first_offset, True)
    with pytest.raises(ConditionFailed) as failed:
        await log.produce("orders", TEXT, if_offset=7)
    assert failed.value.facts["actual"] == 1


async def test_pages_are_whole_batches_and_a_read_is_exact(node, log) -> None:
    for _ in range(3):
        await log.produce("orders", [b"%d" % n for n in range(700)])
    pages = [page async for page in log.read_pages("orders", 3, 1500, page_records=600)]
    assert [(len(page.records), page.next_offset) for page in pages] == [
        (697, 700),
        (700, 1400),
        (100, 1500),
    ]
    for start, limit in ((0, 600), (699, 701), (-5, 10_000)):
        page = await log.read_page("orders", start, limit=limit)
        count = min(limit, 5) if start < 0 else limit
        assert len(page.records) == count
        assert page.next_offset == page.records[-1].offset + 1
    assert len(await log.read("orders", 100, until=900, limit=10_000)) == 800
    assert await log.read("orders", 2100, limit=10_000) == []


async def test_a_tail_yields_batches_as_they_come(node, log) -> None:
    await log.produce("orders", [b"a", b"b", b"c"])
    async with aclosing(log.tail("orders", 1)) as tail:
        seen = [await anext(tail), await anext(tail)]
        await log.produce("orders", b"d", compression="zstd")
        seen.append(await anext(tail))
    assert [(r.offset, r.value) for r in seen] == [(1, b"b"), (2, b"c"), (3, b"d")]


async def test_refusals_are_the_same_for_batches(node, log) -> None:
    await log.produce("orders", [b"a", b"b"])
    await log.trim("orders", 1)
    with pytest.raises(OffsetTrimmed) as trimmed:
        await log.read("orders", 0, limit=10_000)
    assert trimmed.value.log_start_offset == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(9, -1, -1)),
        ({"start": 3, "stop": 6}, [5, 4, 3]),
        ({"start": -2}, [9, 8]),
        ({"stop": 99, "start": 8}, [9, 8]),
        ({"stop": 2}, [1, 0]),
        ({"start": 6, "stop": 6}, []),
        ({"key": "k1"}, [7, 4, 1]),
        ({"timestamp": 1008}, [9, 8]),
    ],
)
async def test_pages_go_downward(node, log, options: dict[str, Any], expected: list[int]) -> None:
    for first in (0, 4):
        batch = [
            Record(b"v", b"k%d" % (n % 3), timestamp=1000 + n) for n in range(first, first + 4)
        ]
        await log.produce("orders", batch)
    await log.produce("orders", Record(b"v", timestamp=1008))
    await log.produce("orders", Record(b"v", timestamp=1009))
    pages = log.read_pages("orders", order="desc", page_records=3, **options)
    offsets = [record.offset async for page in pages for record in page.records]
    assert offsets == [*expected]
    if not options:
        assert [r.offset for r in await log.read("orders", order="desc", limit=2)] == [9, 8]
