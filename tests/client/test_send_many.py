"""Many records in one call: in one order with single ones, under the same bounds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cute_logger.client import (
    AsyncClient,
    BatchingProducer,
    ClusterUnreachable,
    MixedOutcome,
    OutcomeUnknown,
    Record,
    RecordTooLarge,
    Refused,
)
from support.scripted_node import Plays, ScriptedNode


@asynccontextmanager
async def producing(url: str, **settings: Any) -> AsyncIterator[BatchingProducer]:
    async with AsyncClient([url]) as log, log.producer("s", **settings) as producer:
        yield producer


def counts(node: ScriptedNode) -> list[int]:
    return [len(append["records"]) for append in node.appends]


async def test_the_future_is_of_the_offsets_of_all(node: ScriptedNode) -> None:
    async with producing(node.url) as producer:
        assert await (await producer.send_many([b"a", b"b"])) == [0, 1]
        assert await (await producer.send_many(b"%d" % i for i in range(3))) == [2, 3, 4]
        assert await (await producer.send_many([])) == []
    assert node.values == [b"a", b"b", b"0", b"1", b"2"]


async def test_single_and_many_keep_one_order_in_one_batch(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=60_000) as producer:
        first = await producer.send(b"0")
        second = await producer.send(b"1")
        some = await producer.send_many([b"2", "3", Record(b"4", key=b"k", headers={"h": "x"})])
        third = await producer.send(b"5")
        others = await producer.send_many([b"6", b"7"])
        await producer.flush()
        assert [await first, await second, await third] == [0, 1, 5]
        assert (await some, await others) == ([2, 3, 4], [6, 7])
    assert node.values == [b"%d" % i for i in range(8)]
    assert node.appends[0]["records"][4] == {"value": b"4", "key": b"k"}
    assert counts(node) == [8]


async def test_what_is_too_much_for_a_batch_goes_into_several(node: ScriptedNode) -> None:
    values = [b"%04d" % i for i in range(2000)]
    async with producing(node.url, batch_bytes=200, in_flight=8) as producer:
        first = await producer.send(b"first")
        many = await producer.send_many(values)
        last = await producer.send(b"last")
        await producer.flush()
        assert (await first, await many, await last) == (0, [*range(1, 2001)], 2001)
    assert node.values == [b"first", *values, b"last"]
    assert max(counts(node)) * len(values[0]) < 200


async def test_a_batch_has_so_many_records_at_most(node: ScriptedNode) -> None:
    async with producing(node.url, batch_records=10, linger_ms=60_000) as producer:
        await producer.send(b"x")
        await producer.send_many([b"y"] * 24)
    assert counts(node) == [10, 10, 5]


async def test_a_record_above_batch_bytes_is_a_batch_of_its_own(node: ScriptedNode) -> None:
    async with producing(node.url, batch_bytes=100, linger_ms=60_000) as producer:
        await producer.send_many([b"a", b"b" * 500, b"c", b"d"])
    assert counts(node) == [1, 1, 2]


async def test_a_full_batch_does_not_wait(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=60_000, batch_records=2) as producer:
        async with asyncio.timeout(5):
            assert await (await producer.send_many([b"a", b"b"])) == [0, 1]


async def test_what_others_append_may_come_between(node: ScriptedNode) -> None:
    async def other_first(
        node: ScriptedNode, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        node.values.append(b"other")
        return node.carry_out(body)

    node.plays = [None, other_first]
    async with producing(node.url, batch_records=2, in_flight=1) as producer:
        assert await (await producer.send_many([b"a", b"b", b"c", b"d"])) == [0, 1, 3, 4]


async def test_it_waits_while_the_buffer_is_full(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [Plays.after(slow)]
    async with producing(node.url, buffer_bytes=200, linger_ms=0, in_flight=9) as producer:
        values = [b"%d" % i * 50 for i in range(8)]
        blocked = asyncio.create_task(producer.send_many(values))
        await node.wait_for_appends(1)
        assert not blocked.done()
        assert sum(counts(node)) == 3
        slow.set()
        assert await (await blocked) == [*range(8)]
    assert node.values == values


async def test_a_refused_batch_in_the_middle_is_told_apart(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [None, Plays.refuse_after(slow, 413, "record_too_large")]
    async with producing(node.url, batch_records=2, in_flight=3) as producer:
        future = await producer.send_many([b"a", b"b", b"c", b"d", b"e"])
        await node.wait_for_appends(2)
        slow.set()
        with pytest.raises(MixedOutcome, match="3 of 5 records are certainly in") as failed:
            await future
        after = await (await producer.send(b"f"))
    before, refused, behind = failed.value.parts
    assert (before, behind, after) == ((2, range(2)), (1, range(2, 3)), 3)
    assert refused[0] == 2
    assert isinstance(refused[1], RecordTooLarge)
    assert not failed.value.retryable
    assert node.values == [b"a", b"b", b"e", b"f"]


async def test_when_all_are_refused_it_is_refused(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(413, "record_too_large")] * 2
    async with producing(node.url, batch_records=2, in_flight=1) as producer:
        future = await producer.send_many([b"a", b"b", b"c", b"d"])
        with pytest.raises(RecordTooLarge):
            await future
    assert node.values == []


async def test_without_a_cluster_it_is_refused() -> None:
    async with producing("http://127.0.0.1:9", batch_records=1, timeout=0.3) as producer:
        future = await producer.send_many([b"a", b"b", b"c"])
        with pytest.raises(ClusterUnreachable):
            await future


async def test_an_unknown_outcome_of_all_is_unknown(node: ScriptedNode) -> None:
    node.plays = [Plays.hang_up(carry_out=False)] * 1000
    async with producing(node.url, batch_records=1, in_flight=2, timeout=0.3) as producer:
        future = await producer.send_many([b"a", b"b", b"c"])
        with pytest.raises(OutcomeUnknown) as failed:
            await future
        assert type(failed.value) is OutcomeUnknown
        node.plays.clear()
        assert await (await producer.send_many([b"after"])) == [0]


async def test_an_unknown_outcome_behind_what_is_in_is_told_apart(node: ScriptedNode) -> None:
    node.plays = [None, *[Plays.hang_up(carry_out=False)] * 1000]
    async with producing(node.url, batch_records=2, in_flight=1, timeout=0.3) as producer:
        future = await producer.send_many([b"a", b"b", b"c"])
        with pytest.raises(MixedOutcome) as failed:
            await future
    known, unknown = failed.value.parts
    assert known == (2, range(2))
    assert unknown[0] == 1
    assert isinstance(unknown[1], OutcomeUnknown)


async def test_a_lost_answer_is_asked_for_again(node: ScriptedNode) -> None:
    node.plays = [Plays.hang_up(carry_out=True), Plays.hang_up(carry_out=False)]
    async with producing(node.url, batch_records=2) as producer:
        future = await producer.send_many([b"%d" % i for i in range(6)])
        assert await future == [*range(6)]
    assert node.values == [b"%d" % i for i in range(6)]


async def test_a_closed_producer_takes_nothing(node: ScriptedNode) -> None:
    async with producing(node.url) as producer:
        await producer.close()
        for values in ([b"a"], []):
            with pytest.raises(RuntimeError, match="closed"):
                await producer.send_many(values)
    assert node.appends == []


async def test_what_was_not_accepted_when_the_producer_closed_is_refused(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.after(asyncio.Event())]
    async with producing(node.url, buffer_bytes=100, linger_ms=0) as producer:
        waiting = asyncio.create_task(producer.send_many([b"x" * 50] * 4))
        await node.wait_for_appends(1)
        await producer.abort()
        with pytest.raises(MixedOutcome) as failed:
            await (await waiting)
    accepted, rest = failed.value.parts
    assert (accepted[0], rest[0]) == (1, 3)
    assert isinstance(accepted[1], OutcomeUnknown)
    assert isinstance(rest[1], Refused)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([b"a", 1], TypeError),
        ([b"a", None], TypeError),
        ([b"a", Record(b"b", timestamp=-1)], ValueError),
        ([b"a", Record(b"b", headers={"h": "\ud800"})], ValueError),
        ([b"a", "\ud800"], ValueError),
        ([b"a", b"x" * 1001], ValueError),
        ("abc", TypeError),
        (b"abc", TypeError),
        (Record(b"abc"), TypeError),
        (None, TypeError),
    ],
)
async def test_wrong_values_are_told_before_any_is_accepted(
    node: ScriptedNode, values: Any, kind: type[Exception]
) -> None:
    async with producing(node.url, buffer_bytes=1000) as producer:
        with pytest.raises(kind):
            await producer.send_many(values)
    assert node.appends == []


async def test_who_gives_its_future_up_does_not_disturb_the_rest(node: ScriptedNode) -> None:
    async with producing(node.url, linger_ms=60_000) as producer:
        given_up = await producer.send_many([b"a", b"b"])
        given_up.cancel()
        kept = await producer.send_many([b"c"])
        await producer.flush()
        assert await kept == [2]
    assert node.values == [b"a", b"b", b"c"]


async def test_a_call_cancelled_while_it_waits_has_sent_a_part(node: ScriptedNode) -> None:
    slow = asyncio.Event()
    node.plays = [Plays.after(slow)]
    async with producing(node.url, buffer_bytes=100, linger_ms=0) as producer:
        waiting = asyncio.create_task(producer.send_many([b"a" * 50, b"b" * 50]))
        await node.wait_for_appends(1)
        waiting.cancel()
        slow.set()
        assert await (await producer.send(b"c")) == 1
    assert node.values == [b"a" * 50, b"c"]


async def test_what_is_settled_leaves_nothing_for_the_garbage_collector(node: ScriptedNode) -> None:
    async with producing(node.url, batch_records=2, linger_ms=0) as producer:
        gc.disable()
        try:
            future = await producer.send_many([b"a", b"b", b"c"])
            await producer.flush()
            assert future.result() == [0, 1, 2]
            seen = weakref.ref(future)
            del future
            assert seen() is None
        finally:
            gc.enable()
