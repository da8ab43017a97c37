from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cute_logger.client import (
    AsyncClient,
    ClusterUnreachable,
    ConditionFailed,
    NoLeader,
    OutcomeUnknown,
    Record,
    RecordTooLarge,
    UnknownStream,
)
from support.scripted_node import Plays, ScriptedNode

NOBODY = "http://127.0.0.1:9"


async def test_a_receipt_tells_the_offsets_and_moves_the_session_token(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        receipt = await log.produce("s", [b"a", "b", Record(b"c", key=b"k")])

        assert (receipt.first_offset, receipt.last_offset, receipt.count) == (0, 2, 3)
        assert log.session_token == receipt.index
        await log.read("s")
    assert node.values == [b"a", b"b", b"c"]
    assert node.queries[-1]["after"] == str(receipt.index)


async def test_a_503_is_tried_again_with_the_same_sequence(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(503, "no_leader"), Plays.refuse(503, "not_ready")]
    async with AsyncClient([node.url]) as log:
        receipt = await log.produce("s", b"a")

    assert not receipt.duplicate
    assert [body["producer"] for body in node.appends] == [{"id": 1, "epoch": 0, "sequence": 0}] * 3


async def test_a_lost_answer_leads_to_the_first_receipt(node: ScriptedNode) -> None:
    node.plays = [Plays.hang_up(carry_out=True)]
    async with AsyncClient([node.url]) as log:
        receipt = await log.produce("s", b"a")

    assert (receipt.first_offset, receipt.duplicate, node.values) == (0, True, [b"a"])


async def test_the_next_append_takes_the_next_sequence_of_the_same_producer(
    node: ScriptedNode,
) -> None:
    async with AsyncClient([node.url]) as log:
        for _ in range(3):
            await log.produce("s", b"a")
    assert [body["producer"]["sequence"] for body in node.appends] == [0, 1, 2]
    assert node.producers == 1


async def test_a_refusal_does_not_use_up_a_sequence(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(413, "record_too_large", limit=5)]
    async with AsyncClient([node.url]) as log:
        with pytest.raises(RecordTooLarge) as refused:
            await log.produce("s", b"too large")
        await log.produce("s", b"a")
    assert refused.value.limit == 5
    assert [body["producer"]["sequence"] for body in node.appends] == [0, 0]


async def test_a_final_refusal_is_raised_at_once(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(404, "unknown_stream", retryable=True)]
    async with AsyncClient([node.url]) as log:
        with pytest.raises(UnknownStream):
            await log.produce("s", b"a")
    assert len(node.appends) == 1


async def test_a_condition_that_fails_tells_the_actual_offset(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        await log.produce("s", b"a", if_offset=0)
        with pytest.raises(ConditionFailed) as failed:
            await log.produce("s", b"b", if_offset=0)
    assert failed.value.actual == 1


async def test_without_an_answer_until_the_deadline_the_outcome_is_unknown(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.hang_up(carry_out=False)] * 100
    async with AsyncClient([node.url]) as log:
        with pytest.raises(OutcomeUnknown):
            await log.produce("s", b"a", timeout=0.4)
        node.plays.clear()
        await log.produce("s", b"b")
    assert node.producers == 2, "the lane with the doubtful sequence must not be used again"
    assert node.appends[-1]["producer"] == {"id": 2, "epoch": 0, "sequence": 0}


async def test_refusals_until_the_deadline_are_a_problem(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(503, "no_leader")] * 100
    async with AsyncClient([node.url]) as log:
        with pytest.raises(NoLeader):
            await log.produce("s", b"a", timeout=0.4)
        node.plays.clear()
        await log.produce("s", b"b")
    assert node.producers == 1


async def test_nobody_there_is_unreachable_and_not_unknown() -> None:
    async with AsyncClient([NOBODY]) as log:
        with pytest.raises(ClusterUnreachable):
            await log.produce("s", b"a", timeout=0.3)


async def test_another_node_is_asked_at_once(node: ScriptedNode) -> None:
    async with AsyncClient([NOBODY, node.url]) as log:
        started = time.monotonic()
        await log.produce("s", b"a")
    assert time.monotonic() - started < 1


async def test_an_expired_lane_is_replaced_unnoticed(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(409, "producer_expired")]
    async with AsyncClient([node.url]) as log:
        receipt = await log.produce("s", b"a")
    assert (receipt.first_offset, node.producers) == (0, 2)


async def test_a_producer_that_expired_after_an_unanswered_attempt_leaves_it_open(
    node: ScriptedNode,
) -> None:
    node.plays = [Plays.hang_up(carry_out=False), Plays.refuse(409, "producer_expired")]
    async with AsyncClient([node.url]) as log:
        with pytest.raises(OutcomeUnknown):
            await log.produce("s", b"a")


async def test_an_idempotency_key_takes_the_place_of_a_lane(node: ScriptedNode) -> None:
    node.plays = [Plays.refuse(504, "outcome_unknown", "maybe")]
    async with AsyncClient([node.url]) as log:
        first = await log.produce("s", b"a", idempotency_key="k1")
        again = await log.produce("s", b"a", idempotency_key="k1")
    assert (first.duplicate, again.duplicate, again.first_offset) == (False, True, 0)
    assert node.producers == 0
    assert "producer" not in node.appends[0]


async def test_a_cancelled_append_gives_its_lane_up(node: ScriptedNode) -> None:
    never = asyncio.Event()
    node.plays = [Plays.after(never)]
    async with AsyncClient([node.url]) as log:
        task = asyncio.create_task(log.produce("s", b"a"))
        await node.wait_for_appends(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await log.produce("s", b"b")
    assert node.appends[-1]["producer"]["id"] == 2


async def test_concurrent_appends_use_at_most_64_lanes(node: ScriptedNode) -> None:
    async with AsyncClient([node.url]) as log:
        receipts = await asyncio.gather(*(log.produce("s", b"%d" % i) for i in range(200)))
    assert sorted(r.first_offset for r in receipts) == list(range(200))
    assert node.producers <= 64


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        (("s", 5), {}, TypeError),
        ((5, b""), {}, TypeError),
        (("No Such Name", b""), {}, ValueError),
        (("s", []), {}, ValueError),
        (("s", b""), {"if_offset": "1"}, TypeError),
        (("s", b""), {"if_offset": -1}, ValueError),
        (("s", b""), {"headers": {"a": 1}}, TypeError),
        (("s", b""), {"idempotency_key": ""}, ValueError),
        (("s", b""), {"timeout": "1"}, TypeError),
        (("s", [b""]), {"key": b"k"}, ValueError),
    ],
)
async def test_wrong_arguments_are_told_before_anything_is_sent(
    node: ScriptedNode, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception]
) -> None:
    async with AsyncClient([node.url]) as log:
        with pytest.raises(kind):
            await log.produce(*arguments, **options)
    assert node.appends == []
    assert node.producers == 0
