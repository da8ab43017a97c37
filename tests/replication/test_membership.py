"""Nodes come, go, move and lose their disks while the cluster works."""

from __future__ import annotations

import asyncio
import logging
import shutil

import pytest

from cute_logger.replication.config import ReplicaConfig
from cute_logger.replication.errors import (
    MembershipConflict,
    NotLeader,
    OutcomeUnknown,
    UnknownMember,
)
from cute_logger.replication.replica import Replica
from cute_logger.storage.folder import DataFolder
from support.ports import free_ports
from support.replicas import FAST, Cluster, MakeCluster, until


async def add(cluster: Cluster, name: str, role: str = "voter", timeout_s: float = 10) -> None:
    """Ask again if the leader changed meanwhile: the same call waits for what was begun."""
    for _ in range(3):
        leader = await cluster.leader()
        term = leader.term
        try:
            await leader.add_member(name, cluster.addresses[name], role, timeout_s=timeout_s)
        except OutcomeUnknown:
            if leader.is_leader and leader.term == term:
                raise
        else:
            return


async def remove(cluster: Cluster, name: str) -> None:
    """Remove a node, through its successor if it leads."""
    try:
        await (await cluster.leader()).remove_member(name, timeout_s=10)
    except NotLeader:
        await (await cluster.leader()).remove_member(name, timeout_s=10)


def roles(node: Replica) -> dict[str, str]:
    return {member.id: member.role for member in node.status().nodes}


async def all_see(cluster: Cluster, expected: dict[str, str]) -> None:
    await until(
        lambda: all(roles(node) == expected for node in cluster.running.values()),
        f"everybody to see {expected}",
    )


def voters(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "voter")


def wipe(cluster: Cluster, name: str) -> None:
    shutil.rmtree(cluster.folder_of(name))


async def test_a_learner_gets_everything_and_counts_for_nothing(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.append(b"before")
    await cluster.start_new("n4")
    await add(cluster, "n4", "learner")
    await all_see(cluster, {**voters("n1", "n2", "n3"), "n4": "learner"})
    await until(lambda: cluster.running["n4"].ready, "the learner to catch up")
    await cluster.append(b"after")
    assert await cluster.values("n4") == [b"before", b"after"]

    leader = await cluster.leader()
    others = [name for name in cluster.founders if name != leader.id]
    await cluster.stop(others[0])
    await cluster.append(b"two of three")
    await cluster.stop(others[1])
    await until(lambda: leader.leader_id is None, "one of three to stop leading")
    await asyncio.sleep(4 * FAST.election_timeout_s_max)
    assert cluster.running["n4"].term == leader.term
    assert not cluster.running["n4"].is_leader


async def test_a_learner_is_promoted_once_it_has_caught_up(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.start_new("n4")
    await add(cluster, "n4", "learner")
    await add(cluster, "n4")
    await all_see(cluster, voters("n1", "n2", "n3", "n4"))
    new = cluster.running["n4"]
    assert await (await cluster.leader()).transfer_leadership("n4", timeout_s=10) == "n4"
    assert new.is_leader
    await cluster.append(b"from n4")


async def test_a_voter_that_never_comes_is_no_voter(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    cluster.addresses["n4"] = ("127.0.0.1", free_ports(1)[0])
    with pytest.raises(OutcomeUnknown):
        await add(cluster, "n4", timeout_s=0.5)
    await all_see(cluster, {**voters("n1", "n2", "n3"), "n4": "learner"})
    await remove(cluster, "n4")
    await all_see(cluster, voters("n1", "n2", "n3"))


async def test_a_removed_follower_says_so_and_disturbs_nobody(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    away = next(name for name in cluster.running if name != leader.id)
    gone = cluster.running[away]
    await remove(cluster, away)
    await until(lambda: not gone.is_member, "the removed node to know")
    del cluster.running[away]
    term = (await cluster.leader()).term
    await asyncio.sleep(4 * FAST.election_timeout_s_max)
    assert not gone.ready
    assert (await cluster.append(b"x")).term == term
    await gone.stop()
    with pytest.raises(UnknownMember):
        await remove(cluster, away)


async def test_the_leader_gives_way_before_it_is_removed(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    with pytest.raises(NotLeader) as answered:
        await leader.remove_member(leader.id, timeout_s=10)
    successor = cluster.running[answered.value.leader]
    await until(lambda: successor.is_leader and successor.ready, "the successor to lead")
    await successor.remove_member(leader.id, timeout_s=10)
    await cluster.running.pop(leader.id).stop()
    await all_see(cluster, voters(*cluster.running))
    await cluster.append(b"x")


async def test_the_last_voter_stays(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(1)
    with pytest.raises(MembershipConflict):
        await remove(cluster, "n1")


async def test_one_node_grows_to_three_and_shrinks_again(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(1)
    await cluster.append(b"a")
    for name in ("n2", "n3"):
        await cluster.start_new(name)
        await add(cluster, name)
    await cluster.append(b"b")
    await all_see(cluster, voters("n1", "n2", "n3"))
    for name in ("n1", "n2"):
        await remove(cluster, name)
        await cluster.running.pop(name).stop()
    await cluster.append(b"c")
    assert await cluster.values("n3") == [b"a", b"b", b"c"]


async def test_a_dead_node_is_replaced(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.append(b"a")
    dead = next(n for n, node in cluster.running.items() if not node.is_leader)
    await cluster.stop(dead)
    await remove(cluster, dead)
    await cluster.start_new("n4")
    await add(cluster, "n4")
    await all_see(cluster, voters(*cluster.running))
    await cluster.append(b"b")
    assert await cluster.values("n4") == [b"a", b"b"]


async def test_nobody_is_removed_whom_the_majority_needs(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    lost, needed = (name for name in cluster.running if name != leader.id)
    await cluster.stop(lost)
    await asyncio.sleep(2 * FAST.check_quorum_s)
    with pytest.raises(MembershipConflict, match="alive"):
        await leader.remove_member(needed, timeout_s=10)
    await leader.remove_member(lost, timeout_s=10)
    await leader.remove_member(needed, timeout_s=10)


async def test_a_node_moves_to_another_address(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    name = next(n for n, node in cluster.running.items() if not node.is_leader)
    at = ("127.0.0.1", free_ports(1)[0])
    leader = await cluster.leader()
    with pytest.raises(MembershipConflict, match="alive"):
        await leader.add_member(name, at, "voter", timeout_s=10)
    await cluster.stop(name)
    cluster.addresses[name] = at
    await cluster.start(name)
    await leader.add_member(name, at, "voter", timeout_s=10)
    await cluster.append(b"x")
    assert await cluster.values(name) == [b"x"]


async def test_a_cluster_whose_addresses_all_changed_finds_itself(
    make_cluster: MakeCluster,
) -> None:
    cluster = await make_cluster()
    await cluster.append(b"a")
    await cluster.stop()
    ports = free_ports(3)
    cluster.addresses = {f"n{i}": ("127.0.0.1", port) for i, port in enumerate(ports, 1)}
    await cluster.start()
    assert await cluster.append(b"b")


async def test_an_address_belongs_to_one_node(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    with pytest.raises(MembershipConflict):
        await leader.add_member("n4", cluster.addresses["n1"], "voter", timeout_s=10)


async def test_an_empty_disk_under_an_old_id_counts_only_after_it_has_caught_up(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cute_logger.replication.raft")

    def steps() -> list[str]:
        changes = [r for r in caplog.records if r.message == "changes members"]
        return [vars(change)["members"][name] for change in changes]

    cluster = await make_cluster()
    await cluster.append(b"a")
    name = next(n for n, node in cluster.running.items() if not node.is_leader)
    await cluster.stop(name)
    wipe(cluster, name)
    await cluster.start(name, joins=True)
    await until(lambda: steps()[-2:] == ["learner", "voter"], "the node to count again")
    await all_see(cluster, voters("n1", "n2", "n3"))
    await cluster.append(b"b")
    assert await cluster.values(name) == [b"a", b"b"]


async def test_an_empty_disk_elects_nobody(make_cluster: MakeCluster) -> None:
    """One node knows nothing, one lost its disk: they are a majority, and must not lead."""
    cluster = await make_cluster()
    leader = await cluster.leader()
    slow, lost = (name for name in cluster.running if name != leader.id)
    await cluster.append(b"known to all")
    await cluster.stop(slow)
    await cluster.append(b"on two disks")
    await cluster.stop()
    wipe(cluster, lost)
    await cluster.start(slow, lost)
    await asyncio.sleep(6 * FAST.election_timeout_s_max)
    assert all(node.leader_id is None for node in cluster.running.values())

    await cluster.start(leader.id)
    await cluster.leader()
    await all_see(cluster, voters("n1", "n2", "n3"))
    assert await cluster.values(slow) == [b"known to all", b"on two disks"]
    assert await cluster.values(lost) == [b"known to all", b"on two disks"]


async def test_a_second_process_under_a_used_id_is_turned_away(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await make_cluster()
    name = next(n for n, node in cluster.running.items() if not node.is_leader)
    peers = {peer: at for peer, at in cluster.addresses.items() if peer != name}
    at = ("127.0.0.1", free_ports(1)[0])
    folder = str(cluster.folder_of("twin"))
    twin = await Replica.start(ReplicaConfig(name, folder, at, peers, timing=FAST))
    try:
        await until(
            lambda: [r for r in caplog.records if r.message == "another node refuses this one"],
            "the twin to be told",
        )
        assert any("is alive" in vars(r).get("reason", "") for r in caplog.records)
        await cluster.append(b"x")
        assert await cluster.values(name) == [b"x"]
        assert twin.leader_id is None
    finally:
        await twin.stop()


async def test_of_two_changes_at_once_one_is_refused(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    for name in ("n4", "n5"):
        await cluster.start_new(name)
    outcomes = await asyncio.gather(add(cluster, "n4"), add(cluster, "n5"), return_exceptions=True)
    assert sorted(type(each) for each in outcomes if each) == [MembershipConflict]


async def test_all_restart_with_the_members_that_the_log_knows(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await make_cluster()
    await cluster.start_new("n4")
    await add(cluster, "n4")
    await remove(cluster, "n1")
    await cluster.running.pop("n1").stop()
    await cluster.append(b"a")
    await cluster.stop()
    await cluster.start("n2", "n3", "n4")
    await cluster.leader()
    await all_see(cluster, voters("n2", "n3", "n4"))
    assert any("settings name other members" in record.message for record in caplog.records)
    await cluster.stop("n2")
    await cluster.append(b"b")
    assert await cluster.values("n4") == [b"a", b"b"]


async def test_a_node_that_slept_through_everything_finds_its_cluster(
    make_cluster: MakeCluster,
) -> None:
    """It comes back knowing only nodes that are gone but one, and a stranger leads."""
    cluster = await make_cluster()
    sleeper, *rest = (n for n, node in cluster.running.items() if not node.is_leader)
    leader = (await cluster.leader()).id
    await cluster.stop(sleeper)
    for name in ("n4", "n5"):
        await cluster.start_new(name)
        await add(cluster, name)
    for name in (rest[0], leader):
        await remove(cluster, name)
        await cluster.running.pop(name).stop()
    await cluster.append(b"a")
    await cluster.start(sleeper)
    await cluster.leader()
    assert await cluster.values(sleeper) == [b"a"]


async def test_a_node_keeps_its_cluster(make_cluster: MakeCluster) -> None:
    """A node that knows its cluster is not heard by another one, nor hears it."""
    cluster = await make_cluster(1)
    await cluster.start_new("n2")
    await cluster.running.pop("n2").stop()
    with DataFolder.open(str(cluster.folder_of("n2")), "n2") as folder:
        folder.keep_cluster_id("another")
    await cluster.start("n2")
    lost = cluster.running.pop("n2")
    with pytest.raises(OutcomeUnknown):
        await add(cluster, "n2", timeout_s=1)
    assert lost.leader_id is None
    await lost.stop()
