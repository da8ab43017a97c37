"""Little room on a disk: appends are refused before they are proposed; the rest goes on."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

from cute_logger.replication import persistence
from cute_logger.replication.config import Limits
from cute_logger.replication.errors import DiskFull
from cute_logger.storage import checkpoint
from cute_logger.storage.filesystem import OS_FILES, FileSystem
from support.replicas import Cluster, MakeCluster, append_of, until

RESERVE = 1 << 20
ROOMY = 1 << 40


class Disks:
    """How much room each node's disk is said to have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: dict[str, int] = {}
        monkeypatch.setattr(type(OS_FILES), "free_bytes", lambda _, path: self.of(path))

    def of(self, path: str) -> int:
        return self.free.get(path.rpartition("/")[2], ROOMY)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(monkeypatch)


async def make(make_cluster: MakeCluster) -> Cluster:
    cluster = await make_cluster(limits=Limits(disk_reserve_bytes=RESERVE))
    await cluster.append(b"kept")
    return cluster


async def refused(cluster: Cluster) -> None:
    """Wait until the leader refuses an append."""

    def short() -> bool:
        return any(n.is_leader and not n._engine.has_room() for n in cluster.running.values())

    await until(short, "the leader to be short of room")
    leader = await cluster.leader()
    with pytest.raises(DiskFull):
        await leader.append(append_of(b"refused"), timeout_s=5)


async def test_all_disks_short(make_cluster: MakeCluster, disks: Disks) -> None:
    cluster = await make(make_cluster)
    disks.free = dict.fromkeys(cluster.running, RESERVE // 2)
    await refused(cluster)
    assert await cluster.values("n1") == [b"kept"]
    leader = await cluster.leader()
    await leader.delete_stream("s", timeout_s=10)

    disks.free = {}
    await until(lambda: leader._engine.has_room(), "room")
    await leader.create_stream("s", {}, timeout_s=10)
    assert (await cluster.append(b"again")).first_offset == 0


async def test_a_majority_of_followers_short(make_cluster: MakeCluster, disks: Disks) -> None:
    cluster = await make(make_cluster)
    leader = await cluster.leader()
    disks.free = {name: RESERVE // 2 for name in cluster.running if name != leader.id}
    await refused(cluster)


async def test_a_leader_alone_short_gives_way(make_cluster: MakeCluster, disks: Disks) -> None:
    cluster = await make(make_cluster)
    old = await cluster.leader()
    disks.free = {old.id: RESERVE // 2}
    await until(lambda: not old.is_leader, "the leader to give way")
    await cluster.leader()
    assert (await cluster.append(b"new")).first_offset == 1


async def test_a_full_follower_takes_nothing_and_catches_up_later(
    make_cluster: MakeCluster, disks: Disks
) -> None:
    cluster = await make(make_cluster)
    leader = await cluster.leader()
    full = next(node for node in cluster.running.values() if node is not leader)
    disks.free = {full.id: RESERVE // 100}
    await until(lambda: full._core.disk_is_full, "the disk to be full")
    has = full.applied_index
    for number in range(20):
        await cluster.append(b"%d" % number)
    assert full.applied_index <= has + 1

    disks.free = {}
    await until(lambda: full.applied_index >= leader.applied_index, "catching up")
    assert await cluster.values(full.id) == await cluster.values(leader.id)


async def test_a_checkpoint_without_room_is_tried_again(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await make_cluster(1, limits=Limits(checkpoint_bytes=1 << 16))
    node = cluster.running["n1"]
    save, attempts = checkpoint.save, []

    def no_room(files: FileSystem, folder: str, sections: Iterable[bytes]) -> None:
        attempts.append(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", no_room)
    monkeypatch.setattr(persistence, "CHECKPOINT_AGAIN_S", 0.2)
    for number in range(100):
        await cluster.append(b"%d" % number * 1000)
    await until(lambda: len(attempts) >= 2, "a second attempt")
    await node.delete_stream("s", timeout_s=10)
    assert not node.failed.done()

    monkeypatch.setattr(checkpoint, "save", save)
    await until(lambda: node.vitals().measures.checkpoints, "a checkpoint")
    assert list((cluster.folder_of("n1") / "streams").iterdir()) == []
