"""Nodes are added and removed over HTTP, through whichever node is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cute_logger.client import AsyncClient, MembershipConflict, Refused
from cute_logger.node.config import ConfigError, load_config
from support.ports import free_ports

MEMBERS = "/v1/cluster/members"


async def roles(node: Any) -> dict[str, str]:
    cluster = await node.call("GET", "/v1/cluster", status=200)
    return {each["id"]: each["role"] for each in cluster["nodes"]}


@pytest.fixture
async def newcomer(
    cluster: list[Any], tmp_path: Path, joining: Callable[..., Any]
) -> AsyncIterator[Any]:
    """A fourth node, which waits to be added."""
    async with joining(cluster[0].config, "n4", tmp_path) as node:
        yield node


async def test_any_node_adds_a_voter(cluster: list[Any], newcomer: Any) -> None:
    leader, follower, _ = cluster
    await newcomer.refused("GET", "/readyz", "not_ready")
    host, port = newcomer.config.raft
    body = {"id": "n4", "raft": f"{host}:{port}", "role": "voter"}
    added = await follower.call("POST", MEMBERS, status=200, json=body)
    assert (added["id"], added["role"], added["raft"]) == ("n4", "voter", f"{host}:{port}")
    assert await follower.call("POST", MEMBERS, status=200, json=body)
    assert await roles(leader) == dict.fromkeys(("n1", "n2", "n3", "n4"), "voter")
    await newcomer.until(lambda: newcomer.replica.ready)
    assert await newcomer.call("GET", "/readyz", status=200)


async def test_a_learner_stays_one(cluster: list[Any], newcomer: Any) -> None:
    host, port = newcomer.config.raft
    body = {"id": "n4", "raft": f"{host}:{port}", "role": "learner"}
    assert (await cluster[0].call("POST", MEMBERS, status=200, json=body))["role"] == "learner"
    assert (await roles(cluster[0]))["n4"] == "learner"


async def test_any_node_removes_the_leader(cluster: list[Any]) -> None:
    leader, follower, _ = cluster
    name = leader.config.id
    assert await follower.call("DELETE", f"{MEMBERS}/{name}", status=200) == {"id": name}
    assert name not in await roles(follower)
    await leader.until(lambda: not leader.replica.is_member)
    problem = await leader.refused("GET", "/readyz", "not_ready")
    assert problem["reason"] == "not_a_member"
    await follower.refused("DELETE", f"{MEMBERS}/{name}", "not_found")


async def test_the_clients_can_do_it(cluster: list[Any], newcomer: Any) -> None:
    host, port = newcomer.config.raft
    async with AsyncClient([cluster[1].config.http_url]) as client:
        assert (await client.add_member("n4", f"{host}:{port}")).role == "voter"
        await client.remove_member("n4")
        with pytest.raises(Refused):
            await client.remove_member("n4")
        with pytest.raises(MembershipConflict):
            await client.add_member("n5", f"{host}:{cluster[0].config.raft[1]}")
    assert "n4" not in await roles(cluster[0])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": "n4"}, "raft"),
        ({"id": "n4", "raft": "127.0.0.1"}, "raft"),
        ({"id": "n4", "raft": "10.1.2.3:9101"}, "raft"),
        ({"id": "../n4", "raft": "127.0.0.1:9101"}, "id"),
        ({"id": "n4", "raft": "127.0.0.1:9101", "role": "leader"}, "role"),
        ({"id": "n4", "raft": "127.0.0.1:9101", "rolle": "voter"}, "rolle"),
    ],
)
async def test_what_is_wrong_is_named(node: Any, body: dict[str, str], field: str) -> None:
    problem = await node.refused("POST", MEMBERS, "invalid_request", json=body)
    assert problem["field"] == field


async def test_the_only_voter_stays(node: Any) -> None:
    await node.refused("DELETE", f"{MEMBERS}/n1", "membership_conflict")


async def test_a_voter_that_does_not_come_is_an_unknown_outcome(
    node: Any,
) -> None:
    body = {"id": "n2", "raft": f"127.0.0.1:{free_ports(1)[0]}"}
    await node.refused("POST", f"{MEMBERS}?timeout_ms=300", "outcome_unknown", json=body)
    assert (await roles(node))["n2"] == "learner"
    await node.create("s")


def test_a_node_that_joins_still_names_itself() -> None:
    flags = {"id": "n4", "data": "d", "cluster": "n1=127.0.0.1:9101", "join": "true"}
    with pytest.raises(ConfigError, match="n4"):
        load_config(flags, {})
