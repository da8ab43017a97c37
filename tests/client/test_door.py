"""The client at fast doors that play a script."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from cute_logger.client import AsyncClient, Refused
from cute_logger.client.connection import NoAnswer, NotSent
from cute_logger.client.door import DoorAppend, Doors
from cute_logger.client.frames import Frame, MalformedFrame, append_frame, frames_in
from support.door import APPEND, DoorEnd, ScriptedDoor, problem, receipt
from support.door import Frame as Came
from support.ports import free_ports

APPEND_TO_ORDERS = DoorAppend("orders")


async def silence(end: DoorEnd, came: Came) -> None:
    """Answer nothing."""


async def answer(end: DoorEnd, came: Came) -> None:
    end.send(receipt(came.request_id))


async def hang_up(end: DoorEnd, came: Came) -> None:
    raise ConnectionError


def ask(doors: Doors, url: str, timeout_s: float = 5.0):
    return doors.append(url, APPEND_TO_ORDERS, b"batch", timeout_s=timeout_s, timeout_ms=400)


@pytest.fixture
async def doors():
    doors = Doors()
    yield doors
    await doors.close()


def test_an_append_is_these_bytes() -> None:
    assert append_frame(5, DoorAppend("s").head(400), b"batch") == (
        b"\x24\x00\x00\x00" + b"\x05\x00\x00\x00" + b"\x02"
        b"\x18\x00" + b"\x82\xa6stream\xa1s\xaatimeout_ms\xcd\x01\x90" + b"batch"
    )


def test_a_head_says_what_is_given() -> None:
    head = DoorAppend("s", if_offset=3, condition="{}", idempotency_key="k").head(7)
    assert msgpack.unpackb(head) == {
        "stream": "s",
        "timeout_ms": 7,
        "if_offset": 3,
        "if": "{}",
        "idempotency_key": "k",
    }


def test_frames_are_cut_where_they_end() -> None:
    first = b"\x06\x00\x00\x00" + b"\x01\x00\x00\x00" + b"\x03" + b"a"
    second = b"\x05\x00\x00\x00" + b"\x02\x00\x00\x00" + b"\x04"
    for end in range(len(second)):
        whole, rest = frames_in(first + second[:end])
        assert whole == [Frame(1, 3, b"a")]
        assert rest == second[:end]
    assert frames_in(first + second) == ([Frame(1, 3, b"a"), Frame(2, 4, b"")], b"")


@pytest.mark.parametrize("size", [0, 4, (17 << 20) + 1])
def test_what_is_no_frame_is_refused(size: int) -> None:
    with pytest.raises(MalformedFrame):
        frames_in(size.to_bytes(4, "little") + bytes(5))


async def test_many_appends_share_one_connection(doors) -> None:
    async with ScriptedDoor(answer) as node:
        answers = await asyncio.gather(*(ask(doors, node.url) for _ in range(50)))
        assert node.connections == 1
        assert {each.kind for each in node.appends} == {APPEND}
        assert all(each is not None and each.failure() is None for each in answers)


async def test_answers_may_come_in_another_order(doors) -> None:
    async def in_pairs(end: DoorEnd, came: Came) -> None:
        if len(node.appends) == 2:
            first, second = (each.request_id for each in node.appends)
            end.send(receipt(second, first_offset=2), receipt(first, first_offset=1))

    async with ScriptedDoor(in_pairs) as node:
        answers = await asyncio.gather(ask(doors, node.url), ask(doors, node.url))
    assert [each.shape().first_offset for each in answers if each] == [1, 2]


async def test_without_a_connection_nothing_was_sent(doors) -> None:
    (port,) = free_ports(1)
    with pytest.raises(NotSent):
        await ask(doors, f"http://127.0.0.1:{port}")


async def test_a_connection_that_breaks_leaves_all_that_was_sent_without_an_answer(doors) -> None:
    async def third_time(end: DoorEnd, came: Came) -> None:
        if len(node.appends) == 3:
            raise ConnectionError

    async with ScriptedDoor(third_time) as node:
        asked = [ask(doors, node.url) for _ in range(3)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in outcomes] == [NoAnswer] * 3
        node._play = answer
        assert await ask(doors, node.url) is not None
        assert node.connections == 2


async def test_an_answer_that_does_not_come_in_time_is_none(doors) -> None:
    async with ScriptedDoor(silence) as node:
        with pytest.raises(NoAnswer):
            await ask(doors, node.url, timeout_s=0.05)


async def test_a_silent_connection_is_given_up(doors, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.client.door.SILENCE_S", 0.01)
    async with ScriptedDoor(silence) as node:
        long = asyncio.ensure_future(ask(doors, node.url))
        while not node.appends:
            await asyncio.sleep(0.005)
        with pytest.raises(NoAnswer):
            await ask(doors, node.url, timeout_s=0.05)
        with pytest.raises(NoAnswer):
            await long
        node._play = answer
        assert await ask(doors, node.url) is not None
        assert node.connections == 2


async def test_a_late_answer_is_nobodys(doors) -> None:
    async def late(end: DoorEnd, came: Came) -> None:
        if len(node.appends) == 2:
            end.send(*(receipt(each.request_id, each.request_id) for each in node.appends))

    async with ScriptedDoor(late) as node:
        with pytest.raises(NoAnswer):
            await ask(doors, node.url, timeout_s=0.05)
        second = await ask(doors, node.url)
    assert second is not None
    assert second.shape().first_offset == node.appends[1].request_id


async def test_a_node_that_takes_nothing_gets_nothing_more(doors) -> None:
    """What was never begun to be written is known not to be sent."""
    stuck = asyncio.Event()

    async def stop_reading(end: DoorEnd, came: Came) -> None:
        await stuck.wait()

    async with ScriptedDoor(stop_reading) as node:
        large = bytes(4 << 20)
        asked = [
            doors.append(node.url, APPEND_TO_ORDERS, large, timeout_s=0.5, timeout_ms=400)
            for _ in range(12)
        ]
        first = asyncio.ensure_future(asked[0])
        while not node.connections:
            await asyncio.sleep(0.005)
        outcomes = await asyncio.gather(first, *asked[1:], return_exceptions=True)
        stuck.set()
    kinds = [type(each) for each in outcomes]
    assert set(kinds) == {NoAnswer, NotSent}
    assert kinds[0] is NoAnswer
    assert kinds[-1] is NotSent


async def test_a_node_that_does_not_greet_was_sent_nothing(doors, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.client.door.CONNECT_TIMEOUT_S", 0.05)
    async with ScriptedDoor(answer, greets=False) as node:
        with pytest.raises(NotSent):
            await ask(doors, node.url)
        assert await ask(doors, node.url) is None
        assert not node.appends


async def test_a_node_that_speaks_http_only_is_left_to_it(node) -> None:
    async with AsyncClient([node.url]) as log:
        for value in ("a", "b"):
            assert (await log.produce("orders", value)).stream == "s"
    assert node.values == [b"a", b"b"]


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1:1/behind/a/path"])
async def test_some_addresses_are_for_http(doors, url) -> None:
    assert await ask(doors, url) is None


async def test_a_refusal_is_the_same_as_over_http() -> None:
    async def refuse(end: DoorEnd, came: Came) -> None:
        end.send(problem(came.request_id, 404, "unknown_stream"))

    async with ScriptedDoor(refuse) as node, AsyncClient([node.url]) as log:
        with pytest.raises(Refused) as caught:
            await log.produce("orders", "a", idempotency_key="k")
    assert caught.value.code == "unknown_stream"


async def test_who_is_sent_on_goes_to_the_leader_and_stays_there() -> None:
    async with ScriptedDoor(answer) as leader:

        async def send_on(end: DoorEnd, came: Came) -> None:
            told = {"leader": "n1", "leader_http": leader.url}
            end.send(problem(came.request_id, 503, "no_leader", **told))

        async with ScriptedDoor(send_on) as follower, AsyncClient([follower.url]) as log:
            for _ in range(3):
                await log.produce("orders", "a", idempotency_key="k")
            assert len(follower.appends) == 1
            assert len(leader.appends) == 3


async def test_a_lost_answer_is_asked_for_again() -> None:
    async def once_more(end: DoorEnd, came: Came) -> None:
        if len(node.appends) == 1:
            raise ConnectionError
        end.send(receipt(came.request_id, first_offset=4))

    async with ScriptedDoor(once_more) as node, AsyncClient([node.url]) as log:
        assert (await log.produce("orders", "a", idempotency_key="k")).first_offset == 4
    first, second = (each.payload for each in node.appends)
    assert first[-60:] == second[-60:]
