from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cute_logger.client import (
    AsyncClient,
    BatchingProducer,
    ClusterUnreachable,
    OutcomeUnknown,
    RecordTooLarge,
)
from support.scripted_node import Plays, ScriptedNode


@asynccontextmanager
async def producing(url: str, **settings: Any) -> AsyncIterator[BatchingProducer]:
    async with AsyncClient([url]) as log, log.producer("s", **settings) as producer:
        yield producer


async def test_records_of_one_linger_travel_together(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=20) as producer:
        futures = [await producer.send(b"%d" % i) for i in range(10)]
        assert [await future for future in futures] == list(range(10))
    assert len(node.appends) == 1


async def test_a_full_batch_does_not_wait(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=60_000, batch_bytes=100) as producer:
        futures = [await producer.send(b"x" * 40) for _ in range(4)]
        async with asyncio.timeout(5):
            assert await futures[0] == 0


async def test_leaving_the_block_sends_everything(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=60_000) as producer:
        future = await producer.send(b"a")
    assert future.result() == 0


async def test_an_exception_in_the_block_still_flushes(node: ScriptedNode) -> None:
    async def fail_after_a_send() -> None:
        async with producing(node.url, linger_ms=60_000) as producer:
            await producer.send(b"a")
            raise KeyError

    with pytest.raises(KeyError):
        await fail_after_a_send()
    assert node.values == [b"a"]


async def test_order_is_kept_with_many_batches_under_way(node: ScriptedNode) -> None:
    values = [b"%d" % i for i in range(2000)]
    async with producing(node.url, batch_bytes=200, in_flight=8) as producer:
        for value in values:
            await producer.send(value)
    assert node.values == values
    assert node.producers == 1


async def test_what_overtakes_is_sent_again_after_the_older_batch(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [Plays.after(slow)]
    async with producing(node.url, batch_records=1, in_flight=3) as producer:
        futures = [await producer.send(value) for value in (b"a", b"b", b"c")]
        await node.wait_for_appends(3)
        slow.set()
        assert [await future for future in futures] == [0, 1, 2]
    assert node.values == [b"a", b"b", b"c"]
    assert len(node.appends) >= 5


async def test_a_refused_batch_fails_alone_and_the_rest_keeps_its_order(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [None, Plays.refuse_after(slow, 413, "record_too_large")]
    async with producing(node.url, batch_records=1, in_flight=4) as producer:
        futures = [await producer.send(value) for value in (b"a", b"b", b"c", b"d", b"e")]
        await node.wait_for_appends(4)
        slow.set()
        with pytest.raises(RecordTooLarge):
            await futures[1]
        assert [await futures[i] for i in (0, 2, 3, 4)] == [0, 1, 2, 3]
    assert node.values == [b"a", b"c", b"d", b"e"]


async def test_a_refused_batch_with_nothing_behind_leaves_its_sequence_to_the_next(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.refuse(413, "record_too_large")]
    async with producing(node.url, in_flight=1) as producer:
        with pytest.raises(RecordTooLarge):
            await (await producer.send(b"a"))
        assert await (await producer.send(b"b")) == 0
    assert node.producers == 1
    assert [body["producer"]["sequence"] for body in node.appends] == [0, 0]


async def test_a_lost_answer_is_asked_for_again(node: ScriptedNode) -> None:
    node.plays = [Plays.hang_up(carry_out=True), Plays.hang_up(carry_out=False)]
    async with producing(node.url, batch_records=1) as producer:
        futures = [await producer.send(b"%d" % i) for i in range(6)]
    assert [future.result() for future in futures] == list(range(6))
    assert node.values == [b"%d" % i for i in range(6)]


async def test_an_unknown_outcome_fails_what_comes_after_and_a_new_producer_goes_on(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.hang_up(carry_out=False)] * 1000
    async with producing(node.url, batch_records=1, in_flight=2, timeout=0.3) as producer:
        futures = [await producer.send(b"%d" % i) for i in range(5)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 5
        node.plays.clear()
        assert await (await producer.send(b"after")) == 0
    assert node.producers == 2
    assert node.appends[-1]["producer"] == {"id": 2, "epoch": 0, "sequence": 0}


async def test_without_a_cluster_all_that_waited_is_refused_together() -> None:
    async with producing("http://127.0.0.1:9", batch_records=1, timeout=0.3) as producer:
        futures = [await producer.send(b"%d" % i) for i in range(50)]
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ClusterUnreachable}


async def test_send_waits_while_the_buffer_is_full(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [Plays.after(slow)]
    async with producing(node.url, buffer_bytes=200, linger_ms=0) as producer:
        await producer.send(b"x" * 150)
        blocked = asyncio.create_task(producer.send(b"y" * 150))
        await node.wait_for_appends(1)
        assert not blocked.done()
        slow.set()
        assert await (await blocked) == 1


async def test_a_record_that_never_fits_is_a_value_error(node: ScriptedNode) -> None:
    async with producing(node.url, buffer_bytes=100) as producer:
        with pytest.raises(ValueError, match="buffer_bytes"):
            await producer.send(b"x" * 101)


async def test_an_expired_producer_is_replaced_and_nothing_is_lost(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(409, "producer_expired")]
    async with producing(node.url, batch_records=1) as producer:
        futures = [await producer.send(b"%d" % i) for i in range(4)]
    assert [future.result() for future in futures] == [0, 1, 2, 3]
    assert node.values == [b"0", b"1", b"2", b"3"]


async def test_closing_the_client_leaves_the_outcome_of_the_rest_unknown(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.after(asyncio.Event())]
    async with AsyncClient([node.url]) as log:
        producer = log.producer("s", linger_ms=0)
        future = await producer.send(b"a")
        await node.wait_for_appends(1)
    with pytest.raises(OutcomeUnknown):
        future.result()
    with pytest.raises(RuntimeError):
        await producer.send(b"b")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"compression": "snappy"}, ValueError),
        ({"compression": 1}, TypeError),
        ({"in_flight": 0}, ValueError),
        ({"batch_bytes": "1"}, TypeError),
        ({"linger_ms": -1}, ValueError),
        ({"batch_records": 10_001}, ValueError),
    ],
)
async def test_wrong_settings_are_told_at_once(settings: Any, kind: type[Exception]) -> None:
    async with AsyncClient(["http://127.0.0.1:9"]) as log:
        with pytest.raises(kind):
            log.producer("s", **settings)
