"""The fast door of a real node, byte by byte."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from functools import partial

import pytest

from support.door import (
    APPEND,
    HELLO,
    PREAMBLE,
    RECEIPT,
    DoorEnd,
    append,
    batch,
    door,
    frame,
)

KIB, MIB = 1024, 1024 * 1024


async def test_a_node_greets_and_answers_an_append_with_its_receipt(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        hello = await end.frame()
        assert (hello.request_id, hello.kind) == (0, HELLO)
        assert hello.body() == {
            "version": 1,
            "node": "n1",
            "leader": "n1",
            "frame_bytes_max": 8 * MIB + 64 * KIB,
            "requests_max": 1024,
        }
        end.send(append(7, batch(b"a", b"b")))
        answer = await end.frame()
    assert (answer.request_id, answer.kind) == (7, RECEIPT)
    receipt = answer.body()["receipt"]
    assert receipt.pop("timestamp") > 0
    assert receipt.pop("term") == node.replica.term
    assert receipt.pop("index") == node.replica.applied_index
    assert receipt == {
        "stream": "orders",
        "first_offset": 0,
        "last_offset": 1,
        "count": 2,
        "duplicate": False,
        "durability": "quorum",
    }
    cluster = {"node": "n1", "leader": "n1", "term": node.replica.term}
    assert answer.body() | {"receipt": 0, "index": 0} == cluster | {"receipt": 0, "index": 0}
    page = await node.read("orders")
    assert [record["value"] for record in page["records"]] == ["a", "b"]


async def test_literal_bytes_are_an_append(node) -> None:
    await node.create("orders")
    head = b"\x82\xa6stream\xa6orders\xaatimeout_ms\xcd\x13\x88"
    raw = batch(b"a")
    size = 4 + 1 + 2 + len(head) + len(raw)
    sent = size.to_bytes(4, "little") + b"\x05\x00\x00\x00" + b"\x02"
    async with door(node.config.http, b"CUTE\x00\x00\x01\n") as end:
        end.send(sent + len(head).to_bytes(2, "little") + head + raw)
        assert (await end.frame()).kind == HELLO
        answer = await end.frame()
    assert (answer.request_id, answer.kind) == (5, RECEIPT)


@pytest.mark.parametrize("piece", [1, 3, 7, 50])
async def test_frames_may_come_in_pieces(node, piece) -> None:
    await node.create("orders")
    sent = append(1, batch(b"a")) + append(2, batch(b"b" * 300)) + append(3, batch(b"c"))
    async with door(node.config.http, b"") as end:
        whole = PREAMBLE + sent
        for at in range(0, len(whole), piece):
            end.send(whole[at : at + piece])
            await end.writer.drain()
            await asyncio.sleep(0)
        assert (await end.frame()).kind == HELLO
        answers = await end.frames(3)
    assert {each.kind for each in answers.values()} == {RECEIPT}
    assert (await node.read("orders"))["next_offset"] == 3


async def test_many_appends_at_once_keep_their_order(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        assert (await end.frame()).kind == HELLO
        end.send(*(append(n, batch(b"%d" % n)) for n in range(1, 2501)))
        answers = await end.frames(2500)
        firsts = [answers[n].body()["receipt"]["first_offset"] for n in range(1, 2501)]
    assert firsts == list(range(2500))
    assert node.context.bodies.taken == 0
    assert node.context.under_way == 0


async def test_a_repeat_of_a_producer_gets_its_first_receipt(node) -> None:
    await node.create("orders")
    body = batch(b"a", stamp=(9, 0, 0))
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, body), append(2, body))
        answers = await end.frames(2)
    assert [answers[n].body()["receipt"]["duplicate"] for n in (1, 2)] == [False, True]
    assert (await node.read("orders"))["next_offset"] == 1


async def test_conditions_and_keys_are_those_of_http(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a"), if_offset=0, idempotency_key="k"))
        assert (await end.frame()).kind == RECEIPT
        end.send(append(2, batch(b"a"), idempotency_key="k"))
        assert (await end.frame()).body()["receipt"]["duplicate"]
        end.send(append(3, batch(b"b"), if_offset=0))
        problem = (await end.frame()).problem()
        assert (problem["code"], problem["actual"]) == ("condition_failed", 1)
        end.send(append(4, batch(b"b"), **{"if": '{"unchanged": {"key": "k", "since": -1}}'}))
        assert (await end.frame()).kind == RECEIPT
    used = await node.call("GET", "/v1/streams/orders/idempotency/k", status=200)
    assert used["first_offset"] == 0


async def test_a_large_batch_is_looked_at_elsewhere_and_taken(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(*[bytes(KIB)] * 900)), append(2, batch(b"small")))
        answers = await end.frames(2)
    assert {each.kind for each in answers.values()} == {RECEIPT}
    assert (await node.read("orders", offset=-1))["next_offset"] == 901
    assert node.context.bodies.taken == 0


WRONG_REQUESTS = {
    "no batch": (append(1, b"nonsense"), "invalid_request", "body"),
    "a checksum": (append(1, batch(b"a")[:-1] + b"?"), "invalid_request", "crc"),
    "the stream's name": (append(1, batch(b"a"), stream="A/B"), "invalid_request", "stream"),
    "a stream": (append(1, batch(b"a"), stream="other"), "unknown_stream", None),
    "the system's stream": (append(1, batch(b"a"), stream="_x"), "forbidden", None),
    "an unknown member": (append(1, batch(b"a"), more=1), "invalid_request", "head"),
    "a timeout": (append(1, batch(b"a"), timeout_ms=0), "invalid_request", "head"),
    "a key": (append(1, batch(b"a"), idempotency_key="a b"), "invalid_request", "idempotency_key"),
    "a condition": (append(1, batch(b"a"), **{"if": "{"}), "invalid_request", "if"),
    "a head that is no text": (
        frame(1, APPEND, b"\x0b\x00\x81\xa6stream\xa1\xff"),
        "invalid_request",
        "head",
    ),
    "a head behind its frame": (frame(1, APPEND, b"\xff\x00\x80"), "invalid_request", "head"),
    "no head": (frame(1, APPEND, b"\x01"), "invalid_request", "head"),
    "an unknown kind": (frame(1, 9, b"?"), "invalid_request", "kind"),
    "a node's kind": (frame(1, RECEIPT, b""), "invalid_request", "kind"),
}


@pytest.mark.parametrize("name", WRONG_REQUESTS)
async def test_a_wrong_request_is_refused_and_the_next_is_served(node, name) -> None:
    sent, code, field = WRONG_REQUESTS[name]
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(sent)
        answer = await end.frame()
        problem = answer.problem()
        assert answer.request_id == 1
        assert problem["code"] == code, problem
        assert problem.get("field") == field
        assert problem["side_effect"] == "none"
        assert problem["request_id"]
        end.send(append(2, batch(b"a")))
        assert (await end.frame()).kind == RECEIPT
    assert node.context.bodies.taken == 0


@pytest.mark.parametrize("size", [0, 4, 8 * MIB + 64 * KIB + 1, 2**32 - 1])
async def test_what_is_no_frame_ends_the_connection(node, size) -> None:
    async with door(node.config.http) as end:
        await end.frame()
        end.send(struct.pack("<IIB", size, 3, APPEND))
        answer = await end.frame()
        assert answer.request_id == 0
        assert answer.problem()["field"] == "frame"
        await end.until_closed()
    await node.until(lambda: not node.context.strangers)


async def test_what_was_asked_before_a_broken_frame_is_carried_out(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a")) + struct.pack("<IIB", 0, 3, APPEND))
        await end.until_closed()
    await node.until(lambda: node.context.under_way == 0)
    assert (await node.read("orders"))["next_offset"] == 1


async def test_another_version_is_refused(node) -> None:
    async with door(node.config.http, b"CUTE\x00\x00\x02\n") as end:
        problem = (await end.frame()).problem()
        assert problem["field"] == "preamble"
        assert "version 1" in problem["detail"]
        await end.until_closed()


async def test_what_begins_like_a_preamble_and_is_none_gets_http_answers(node) -> None:
    async with door(node.config.http, b"CUTE") as end:
        end.send(b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await end.reader.read(1000)).startswith(b"HTTP/1.0 400")


async def test_a_connection_without_a_frame_is_closed(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.http.place.FIRST_REQUEST_TIMEOUT_S", 0.05)
    async with door(node.config.http) as end:
        await end.until_closed()
    await node.until(lambda: node.context.connections == 0)


async def test_a_frame_that_does_not_come_is_given_up(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.door.door.WATCH_S", 0.05)
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a"))[:-1])
        await node.until(lambda: node.context.bodies.taken > 0)
        assert (await end.frame()).problem()["field"] == "frame"
        await end.until_closed()
    await node.until(lambda: node.context.bodies.taken == 0)


async def test_a_frame_that_begins_after_a_rest_has_its_time(node) -> None:
    await node.create("orders")
    sent = append(1, batch(b"a"))
    async with door(node.config.http) as end:
        await end.frame()
        (transport,) = node.context.strangers
        protocol = transport.get_protocol()
        for _ in range(3):
            protocol._look()
        end.send(sent[:-1])
        await node.until(lambda: node.context.bodies.taken > 0)
        protocol._look()
        end.send(sent[-1:])
        assert (await end.frame()).kind == RECEIPT


async def test_a_connection_that_rests_is_closed_in_the_end(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.door.door.WATCH_S", 0.05)
    monkeypatch.setattr("cute_logger.node.door.door.IDLE_S", 0.2)
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a")))
        assert (await end.frame()).kind == RECEIPT
        await end.until_closed()


async def test_frames_count_against_the_budget_as_they_arrive(start_node) -> None:
    node = await start_node(body_bytes_max=MIB, bodies_bytes_max=MIB)
    await node.create("orders")
    large = append(1, batch(bytes(600 * KIB)))
    async with door(node.config.http) as holding, door(node.config.http) as end:
        await holding.frame()
        await end.frame()
        holding.send(large[:-1])
        await node.until(lambda: node.context.bodies.taken == len(large) - 1)
        end.send(large)
        answer = await end.frame()
        assert answer.request_id == 1
        assert answer.problem()["code"] == "throttled"
        assert answer.body()["retry_after_s"] == 1
        end.send(append(2, batch(b"small enough")))
        assert (await end.frames(1))[2].kind == RECEIPT
        holding.send(large[-1:])
        assert (await holding.frame()).kind == RECEIPT
    await node.until(lambda: node.context.bodies.taken == 0)


async def test_requests_under_way_are_bounded(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.door.door.REQUESTS_MAX", 4)
    await node.create("orders")
    largest = 0
    began = node.context.begin

    def counted() -> None:
        nonlocal largest
        began()
        largest = max(largest, node.context.under_way)

    monkeypatch.setattr(node.context, "begin", counted)
    async with door(node.config.http) as end:
        assert (await end.frame()).body()["requests_max"] == 4
        end.send(*(append(n, batch(b"%d" % n)) for n in range(1, 101)))
        answers = await end.frames(100)
    assert {each.kind for each in answers.values()} == {RECEIPT}
    assert largest == 4


async def _flood(end: DoorEnd, request_bytes: int) -> None:
    """Ask until nothing more is taken."""
    request = append(1, b"no batch", stream="x" * (request_bytes - 60))
    while True:
        end.send(request * 100)
        async with asyncio.timeout(0.5):
            await end.writer.drain()


async def test_a_client_that_takes_no_answers_is_read_no_more_and_cut_off(
    node, monkeypatch
) -> None:
    monkeypatch.setattr("cute_logger.node.door.door.WATCH_S", 0.5)
    async with door(node.config.http) as end:
        with pytest.raises((TimeoutError, ConnectionError)):
            await _flood(end, 200)
        await node.until(lambda: node.context.connections == 0)
    assert node.context.under_way == 0
    assert node.context.bodies.taken == 0


async def test_connections_beyond_the_limit_are_told_so(start_node) -> None:
    node = await start_node(connections_max=1)
    async with door(node.config.http) as first, door(node.config.http) as second:
        assert (await first.frame()).kind == HELLO
        assert (await second.frame()).problem()["code"] == "throttled"
        await second.until_closed()
    await node.until(lambda: node.context.connections == 0)


async def test_a_stopping_node_finishes_what_is_under_way_and_refuses_the_rest(
    node, monkeypatch
) -> None:
    await node.create("orders")
    held: list[Callable[[], None]] = []
    submit = node.replica.submit_append
    monkeypatch.setattr(
        node.replica, "submit_append", lambda *a, **k: held.append(partial(submit, *a, **k))
    )
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a")))
        await node.until(lambda: bool(held))
        draining = asyncio.ensure_future(node.server.drain(5))
        await node.until(lambda: node.context.stopping)
        end.send(append(2, batch(b"b")))
        assert (await end.frames(1))[2].problem()["code"] == "shutting_down"
        assert not draining.done()
        held[0]()
        assert await draining
        assert (await end.frames(1))[1].kind == RECEIPT
        await node.server.close()
        await end.until_closed()


async def test_a_node_that_recovers_says_so(bare_node) -> None:
    async with door(bare_node.config.http) as end:
        assert (await end.frame()).body()["leader"] is None
        end.send(append(1, batch(b"a")))
        problem = (await end.frame()).problem()
    assert (problem["code"], problem["reason"]) == ("not_ready", "recovering")


async def test_a_follower_says_where_the_leader_is(cluster) -> None:
    leader, follower = cluster[:2]
    async with door(follower.config.http) as end:
        assert (await end.frame()).body()["leader"] == leader.config.id
        end.send(append(1, batch(b"a")))
        problem = (await end.frame()).problem()
    assert problem["code"] == "no_leader"
    assert problem["side_effect"] == "none"
    assert problem["leader"] == leader.config.id
    assert problem["leader_http"] == leader.config.http_url


async def test_an_append_without_a_majority_is_unknown_in_time(cluster) -> None:
    leader = cluster[0]
    await leader.create("orders")
    async with door(leader.config.http) as end:
        await end.frame()
        for follower in cluster[1:]:
            await follower.replica.stop()
        end.send(append(1, batch(b"a"), timeout_ms=50))
        problem = (await end.frame()).problem()
    assert (problem["code"], problem["side_effect"]) == ("outcome_unknown", "maybe")


async def test_the_metrics_count_the_door_for_itself(node) -> None:
    await node.create("orders")
    async with door(node.config.http) as end:
        await end.frame()
        end.send(append(1, batch(b"a")), append(2, b"nonsense"))
        await end.frames(2)
    async with node.http.get(node.url("/metrics")) as response:
        text = await response.text()
    counted = 'cute_http_requests_total{method="APPEND",route="door",status="%s"} 1.0'
    assert counted % "2xx" in text
    assert counted % "4xx" in text
    assert 'cute_http_request_seconds_count{method="APPEND",route="door"} 2.0' in text
