"""How long the client waits for a node that does not answer: what the others say decides."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cute_logger.client import AsyncClient
from cute_logger.client.watch import (
    LEADER_SILENT_S,
    SILENT_S,
    View,
    Waiting,
    reason_to_leave,
)
from support.scripted_node import Plays, ScriptedNode

A, B = "http://a:1", "http://b:1"


def waiting(*, term: int = 3, writes: bool = True, since: float = 100.0) -> Waiting:
    return Waiting(A, since, term, writes, asyncio.Timeout(None))


def leaves(view: View, *, heard_at: float = 0.0, now: float = 100.0, **attempt: Any) -> bool:
    return reason_to_leave(waiting(**attempt), view, heard_at, now) is not None


def test_another_leader_of_a_newer_term_ends_the_wait_at_once() -> None:
    assert leaves(View(B, 4, B))


@pytest.mark.parametrize(
    "view",
    [View(B, 3, B), View(B, 4, None), View(B, 4, A), View(A, 4, B)],
    ids=["the same term", "nobody leads yet", "the node asked leads", "the node asked says so"],
)
def test_else_it_is_waited_for(view: View) -> None:
    assert not leaves(view)


def test_without_a_term_that_was_known_a_leader_elsewhere_is_no_news() -> None:
    assert not leaves(View(B, 4, B), term=0)


def test_a_node_that_says_nothing_is_left_for_another_leader() -> None:
    assert leaves(View(B, 3, B), now=100.0 + SILENT_S)
    assert not leaves(View(B, 3, B), now=100.0 + SILENT_S, heard_at=100.1)


def test_a_write_waits_longer_for_the_leader_than_a_read() -> None:
    view, soon = View(B, 3, A), 100.0 + SILENT_S
    assert leaves(view, now=soon, writes=False)
    assert not leaves(view, now=soon)
    assert leaves(view, now=100.0 + LEADER_SILENT_S)
    assert not leaves(view, now=100.0 + LEADER_SILENT_S, heard_at=101.0)


def test_a_node_may_hold_a_long_poll_back() -> None:
    assert not leaves(View(B, 4, B), since=130.0)


@pytest.fixture
def cluster(node: ScriptedNode, second_node: ScriptedNode) -> tuple[ScriptedNode, ScriptedNode]:
    """The first one leads in term 1; both say so."""
    elect(1, node, node, second_node)
    return node, second_node


def elect(term: int, leader: ScriptedNode, *nodes: ScriptedNode) -> None:
    named = {each: f"n{number}" for number, each in enumerate(nodes, 1)}
    rest = {"raft": None, "role": "voter", "state": "?", "connected": True}
    members = [{"id": named[each], "http": each.url} | rest for each in nodes]
    for each in nodes:
        each.view = {"node": named[each], "leader": named[leader], "term": term, "nodes": members}


async def test_a_frozen_leader_is_left_when_the_others_have_another(
    cluster: tuple[ScriptedNode, ScriptedNode],
) -> None:
    first, second = cluster
    async with AsyncClient([first.url, second.url]) as log:
        await log.cluster()
        await log.produce("other", b"before")
        first.freeze()
        began = time.monotonic()
        writing = asyncio.create_task(log.produce("s", b"after"))
        await second.wait_for_looks(2)
        assert second.appends == []
        elect(2, second, first, second)
        elected = time.monotonic()
        await second.wait_for_appends(1)
        assert time.monotonic() - elected < 0.4
        assert time.monotonic() - began < 1.0
        receipt = await writing
    assert [body["producer"]["sequence"] for body in second.appends] == [0]
    assert receipt.first_offset == 0


async def test_a_slow_leader_is_waited_for(cluster: tuple[ScriptedNode, ScriptedNode]) -> None:
    first, second = cluster
    event = asyncio.Event()
    async with AsyncClient([first.url, second.url]) as log:
        await log.cluster()
        await log.produce("s", b"before")
        first.plays = [Plays.after(event)] * 20
        writing = [asyncio.create_task(log.produce("s", b"slow")) for _ in range(20)]
        await second.wait_for_looks(25)
        assert not any(each.done() for each in writing)
        event.set()
        await asyncio.gather(*writing)
    assert len(first.appends) == 21
    assert second.appends == []
    assert first.looks_at_once == second.looks_at_once == 1


async def test_who_waits_for_nothing_asks_nobody(
    cluster: tuple[ScriptedNode, ScriptedNode],
) -> None:
    first, second = cluster
    async with AsyncClient([first.url, second.url]) as log:
        await log.cluster()
        began, looks = time.monotonic(), first.looks
        while time.monotonic() - began < 0.5:
            await log.produce("s", b"quick")
    assert (first.looks, second.looks) == (looks, 0)


async def test_a_read_leaves_a_node_that_is_frozen(
    cluster: tuple[ScriptedNode, ScriptedNode],
) -> None:
    first, second = cluster
    async with AsyncClient([second.url, first.url]) as log:
        await log.cluster()
        second.freeze()
        began = time.monotonic()
        assert await log.read("s") == []
    assert time.monotonic() - began < SILENT_S + 1.0
