"""A node whose files are damaged comes back as one that has none, and gets everything anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cute_logger.replication.config import Limits
from cute_logger.storage.errors import Damaged
from support.replicas import Cluster, MakeCluster, until

VALUES = [b"%06d" % number * 40 for number in range(200)]
LIMITS = Limits(wal_segment_bytes=32 << 10, checkpoint_s=3600.0, wal_retain_bytes=0)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def flip_log(folder: Path) -> None:
    flip(min((folder / "wal").iterdir()), 5_000)


def flip_checkpoint(folder: Path) -> None:
    flip(folder / "checkpoint", 30)


def flip_mark(folder: Path) -> None:
    flip(folder / "node", 40)


async def grown(make_cluster: MakeCluster, *, with_checkpoint: bool) -> tuple[Cluster, str]:
    """A cluster with records; one of its followers, which is stopped."""
    cluster = await make_cluster(3, limits=LIMITS)
    for first in range(0, len(VALUES), 10):
        await cluster.append(*VALUES[first : first + 10])
    leader = await cluster.leader()
    name = next(each for each in cluster.running if each != leader.id)
    node = cluster.running[name]
    await until(lambda: node.applied_index >= leader.applied_index, "the follower to have all")
    if with_checkpoint:
        await cluster.stop(name)
    else:
        await cluster.crash(name)
    return cluster, name


@pytest.mark.parametrize("damage", [flip_log, flip_checkpoint, flip_mark])
async def test_it_comes_back_as_another_and_gets_everything(
    make_cluster: MakeCluster, damage: Callable[[Path], None]
) -> None:
    cluster, name = await grown(make_cluster, with_checkpoint=damage is not flip_log)
    leader = await cluster.leader()
    before = next(m for m in leader._core.members.newest.members if m.id == name).incarnation
    damage(cluster.folder_of(name))
    await cluster.start(name)
    node = cluster.running[name]
    assert node.is_repairing
    assert (cluster.folder_of(name) / "wal.damaged").exists()

    assert await cluster.values(name) == VALUES
    await until(lambda: not node.is_repairing, "the repair to end")
    member = next(m for m in leader._core.members.newest.members if m.id == name)
    assert member.is_voter
    assert member.incarnation != before
    assert not list(cluster.folder_of(name).glob("*.damaged"))
    await cluster.append(b"more")
    assert await cluster.values(name) == [*VALUES, b"more"]


async def test_a_node_alone_refuses_to_start(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(1, limits=LIMITS)
    await cluster.append(*VALUES)
    await cluster.stop("n1")
    flip_checkpoint(cluster.folder_of("n1"))
    with pytest.raises(Damaged, match="checkpoint"):
        await cluster.start("n1")
    assert not list(cluster.folder_of("n1").glob("*.damaged"))


async def test_all_damaged_at_once_wait_and_keep_what_they_have(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(3, limits=LIMITS)
    await cluster.append(*VALUES)
    await cluster.stop()
    for name in cluster.addresses:
        flip_checkpoint(cluster.folder_of(name))
    await cluster.start()
    with pytest.raises(pytest.fail.Exception):
        await until(lambda: any(n.leader_id for n in cluster.running.values()), "a leader", 1.5)
    for name in cluster.addresses:
        assert (cluster.folder_of(name) / "checkpoint.damaged").exists()
        assert (cluster.folder_of(name) / "streams.damaged").exists()


async def test_a_log_that_rests_says_that_its_end_is_durable(make_cluster: MakeCluster) -> None:
    """So that a bad last entry is not taken for a write that never ended."""
    cluster = await make_cluster(3, limits=LIMITS)
    await cluster.append(*VALUES[:50])
    leader = await cluster.leader()
    name = next(each for each in cluster.running if each != leader.id)
    engine, wal = cluster.running[name]._engine, cluster.running[name]._recovered.wal
    await until(lambda: engine._vouched_lsn == wal.lsn == wal.durable_lsn, "the log to rest")
    await cluster.crash(name)
    log = max((cluster.folder_of(name) / "wal").iterdir())
    flip(log, log.read_bytes().rindex(VALUES[49]))
    await cluster.start(name)
    assert cluster.running[name].is_repairing
    assert await cluster.values(name) == VALUES[:50]


async def test_lost_entries_are_sent_again(make_cluster: MakeCluster) -> None:
    """A garbled end may look like a torn write: its entry is gone, though it was acknowledged."""
    cluster, name = await grown(make_cluster, with_checkpoint=False)
    log = max((cluster.folder_of(name) / "wal").iterdir())
    data = log.read_bytes()
    log.write_bytes(data[: data.rindex(VALUES[-1])])
    await cluster.start(name)
    assert not cluster.running[name].is_repairing
    assert await cluster.values(name) == VALUES
    await cluster.append(b"more")
    assert await cluster.values(name) == [*VALUES, b"more"]


async def test_damage_that_only_others_would_read_is_skipped(make_cluster: MakeCluster) -> None:
    """The leader's old log is bad where a follower that was away goes on: it gets a snapshot."""
    cluster = await make_cluster(3, limits=Limits(wal_segment_bytes=32 << 10, wal_cache_bytes=1))
    await cluster.append(VALUES[0])
    leader = await cluster.leader()
    name = next(each for each in cluster.running if each != leader.id)
    await cluster.crash(name)
    for value in VALUES[1:]:
        await cluster.append(value)
    for log in sorted((cluster.folder_of(leader.id) / "wal").iterdir())[:-1]:
        for position in range(1000, log.stat().st_size, 4000):
            flip(log, position)
    await cluster.start(name)
    assert await cluster.values(name) == VALUES
    assert not leader.failed.done()


async def test_a_leader_whose_checkpoint_is_damaged_makes_another(
    make_cluster: MakeCluster,
) -> None:
    limits = Limits(wal_segment_bytes=32 << 10, wal_retain_bytes=0, checkpoint_bytes=64 << 10)
    cluster = await make_cluster(3, limits=limits)
    await cluster.append(VALUES[0])
    leader = await cluster.leader()
    name = next(each for each in cluster.running if each != leader.id)
    await cluster.crash(name)
    for value in VALUES[1:]:
        await cluster.append(value)
    wal = leader._recovered.wal
    await until(lambda: wal.first_index > 20, "the log's beginning to be given up")
    flip_checkpoint(cluster.folder_of(leader.id))
    await cluster.start(name)
    assert await cluster.values(name) == VALUES
    assert not leader.failed.done()
