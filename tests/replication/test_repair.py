"""Bytes that rot on one node are put right from the others while all of them serve."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cute_logger.replication import repair, scrub
from cute_logger.replication.config import Limits
from cute_logger.replication.replica import Replica
from cute_logger.storage.batch import parse_batch
from cute_logger.storage.errors import Damaged
from support.replicas import Cluster, MakeCluster, append_of, until

ON_READ = Limits(cache_bytes=1 << 10, scrub_bytes_per_s=0)
"""Reads come from the disk, and nobody looks for damage unasked."""
SCRUBBED = dataclasses.replace(ON_READ, scrub_bytes_per_s=64 << 20, scrub_pause_s=0.05)
VALUES = [b"%04d" % number * 100 for number in range(300)]


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "AGAIN_S_MAX", 0.2)
    monkeypatch.setattr(repair, "AGAIN_S", 0.1)


async def filled(make_cluster: MakeCluster, limits: Limits) -> Cluster:
    """A cluster whose stream has some ten segments on every node."""
    cluster = await make_cluster(limits=limits)
    leader = await cluster.leader()
    await leader.alter_stream("s", {"segment.bytes": 15_000}, timeout_s=10)
    for start in range(0, len(VALUES), 50):
        values = VALUES[start : start + 50]
        await asyncio.gather(*(leader.append(append_of(v), timeout_s=20) for v in values))
    await all_written(cluster)
    return cluster


async def all_written(cluster: Cluster) -> None:
    """Wait until every node has everything in its files."""
    end = (await cluster.leader()).stream("s").high_watermark
    for name, node in cluster.running.items():
        await until(
            lambda node=node: (
                node.stream("s").high_watermark == end and not node._machine.unwritten_bytes
            ),
            f"{name} to have written everything",
        )


def stores(cluster: Cluster, name: str) -> list[Path]:
    return sorted((cluster.folder_of(name) / "streams").rglob("*.log"))


def contents(cluster: Cluster, name: str) -> list[bytes]:
    return [path.read_bytes() for path in stores(cluster, name)]


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << random.randrange(8)]))


def follower(cluster: Cluster, leader: Replica) -> str:
    return next(name for name in cluster.running if name != leader.id)


async def mended(cluster: Cluster, right: Sequence[bytes]) -> None:
    """Wait until all files are as they were."""

    def is_right() -> bool:
        no_damage = all(not node.vitals().damaged_places for node in cluster.running.values())
        return no_damage and all(contents(cluster, name) == right for name in cluster.running)

    await until(is_right, "all files to be right")


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_a_reader_gets_right_bytes_from_rotten_files(
    make_cluster: MakeCluster, who: str
) -> None:
    """Two places in one sealed segment, one right behind the other, and one in the active one."""
    cluster = await filled(make_cluster, ON_READ)
    leader = await cluster.leader()
    name = leader.id if who == "leader" else follower(cluster, leader)
    right = contents(cluster, name)
    assert len(right) > 5
    first = parse_batch(right[2])
    for number, position in ((2, 50), (2, first.size + 100), (2, 9_000), (-1, 700)):
        flip(stores(cluster, name)[number], position)

    assert await cluster.values(name) == VALUES
    await mended(cluster, right)
    assert leader is await cluster.leader()
    assert cluster.running[name].vitals().measures.mended_bytes >= 4 * first.size


async def test_nodes_that_are_rotten_in_different_places_help_each_other(
    make_cluster: MakeCluster,
) -> None:
    cluster = await filled(make_cluster, ON_READ)
    right = contents(cluster, "n1")
    for number, name in enumerate(cluster.running):
        for segment in range(0, len(right), 2):
            flip(stores(cluster, name)[segment], 1000 + 1500 * number)
    for name in cluster.running:
        assert await cluster.values(name) == VALUES
    await mended(cluster, right)


async def test_the_scrub_finds_what_nobody_reads(make_cluster: MakeCluster) -> None:
    cluster = await filled(make_cluster, SCRUBBED)
    right = contents(cluster, "n1")
    for number, name in enumerate(cluster.running):
        for segment in range(len(right)):
            flip(stores(cluster, name)[segment], 2000 * number + random.randrange(1000))
    await mended(cluster, right)
    assert all(node.vitals().measures.scrubbed_bytes for node in cluster.running.values())


async def test_where_all_copies_are_rotten_only_that_is_refused_until_one_is_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = await filled(make_cluster, ON_READ)
    right = contents(cluster, "n1")
    lost = parse_batch(right[3])
    for name in cluster.running:
        flip(stores(cluster, name)[3], 60)
    for node in cluster.running.values():
        async with asyncio.timeout(3 * repair.ANSWER_S):
            with pytest.raises(Damaged):
                await node.read("s", lost.base_offset, bytes_max=1)
        an_index_interval_on = lost.next_offset + 10
        assert (await node.read("s", an_index_interval_on, bytes_max=1)).batches
        assert (await node.read("s", lost.base_offset - 1, bytes_max=1)).batches
        (place,) = node.damaged(10)
        assert (place.stream, place.segment, place.position) == ("s", lost.base_offset, 0)
        assert place.offset == lost.base_offset

    stores(cluster, "n2")[3].write_bytes(right[3])
    await mended(cluster, right)
    assert await cluster.values("n1") == VALUES


async def test_what_is_trimmed_need_not_be_mended(make_cluster: MakeCluster) -> None:
    cluster = await filled(make_cluster, SCRUBBED)
    for name in cluster.running:
        flip(stores(cluster, name)[0], 60)
    nodes = list(cluster.running.values())
    await until(lambda: all(node.vitals().damaged_places for node in nodes), "damage to be found")
    leader = await cluster.leader()
    await leader.trim("s", leader.stream("s").high_watermark - 20, timeout_s=10)
    await until(lambda: not any(node.vitals().damaged_places for node in nodes), "it to be gone")


def rot_the_end(folder: Path) -> None:
    path = max(folder.rglob("*.log"))
    flip(path, path.stat().st_size - 5)


def lose_the_end(folder: Path) -> None:
    path = max(folder.rglob("*.log"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def lose_a_file(folder: Path) -> None:
    sorted(folder.rglob("*.log"))[3].unlink()


def lose_an_index(folder: Path) -> None:
    rot_the_end(folder)
    for path in folder.rglob("*.index"):
        path.write_bytes(path.read_bytes()[:-8] + random.randbytes(8))


@pytest.mark.parametrize("damage", [rot_the_end, lose_the_end, lose_a_file, lose_an_index])
async def test_a_node_that_finds_damage_at_its_start_starts_and_is_mended(
    make_cluster: MakeCluster, damage: Callable[[Path], None]
) -> None:
    cluster = await filled(make_cluster, SCRUBBED)
    name = follower(cluster, await cluster.leader())
    right = contents(cluster, name)
    await cluster.stop(name)
    damage(cluster.folder_of(name) / "streams")
    await cluster.start(name)
    await cluster.append(b"later")
    assert await cluster.values(name) == [*VALUES, b"later"]
    await all_written(cluster)
    leader = await cluster.leader()
    right = contents(cluster, leader.id)
    await mended(cluster, right)


async def test_a_snapshot_is_not_taken_from_rotten_bytes(make_cluster: MakeCluster) -> None:
    """The leader's own bytes are mended first, from the third node."""
    limits = dataclasses.replace(
        ON_READ,
        wal_segment_bytes=16 << 10,
        wal_cache_bytes=8 << 10,
        wal_retain_bytes=8 << 10,
        checkpoint_bytes=16 << 10,
    )
    cluster = await make_cluster(limits=limits)
    leader = await cluster.leader()
    await leader.alter_stream("s", {"segment.bytes": 15_000}, timeout_s=10)
    away = follower(cluster, leader)
    known = cluster.running[away].applied_index
    await cluster.stop(away)
    for start in range(0, len(VALUES), 50):
        values = VALUES[start : start + 50]
        await asyncio.gather(*(leader.append(append_of(v), timeout_s=20) for v in values))
    await until(lambda: leader._recovered.wal.first_index > known + 1, "the log to be given up")
    await all_written(cluster)
    right = contents(cluster, leader.id)
    flip(stores(cluster, leader.id)[1], 5_000)

    await cluster.start(away)
    assert await cluster.values(away) == VALUES
    await all_written(cluster)
    assert contents(cluster, away) == contents(cluster, leader.id) == right


async def test_a_node_alone_cannot_mend_and_says_so_at_once(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(count=1, limits=ON_READ)
    await cluster.append(b"rotten")
    for _ in range(10):
        await cluster.append(b"x" * 200)
    await all_written(cluster)
    flip(stores(cluster, "n1")[0], 60)
    node = cluster.running["n1"]
    async with asyncio.timeout(repair.ANSWER_S):
        with pytest.raises(Damaged):
            await node.read("s", 0, bytes_max=1)


async def test_no_scrub_runs_where_it_is_switched_off(make_cluster: MakeCluster) -> None:
    cluster = await filled(make_cluster, dataclasses.replace(ON_READ, scrub_pause_s=0.0))
    assert [node.vitals().measures.scrubbed_bytes for node in cluster.running.values()] == [0] * 3


async def test_the_scrub_keeps_its_pace(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "PIECE_BYTES", 4 << 10)
    pace = 100_000
    limits = dataclasses.replace(SCRUBBED, scrub_bytes_per_s=pace)
    cluster = await filled(make_cluster, limits)
    node = cluster.running["n1"]
    loop = asyncio.get_running_loop()
    began, seen = loop.time(), node.vitals().measures.scrubbed_bytes
    await until(lambda: node.vitals().measures.scrubbed_bytes > seen + 20_000, "a few pieces")
    # A piece of 4 KiB counts as 16: what a small piece costs is not its bytes.
    assert loop.time() - began > 0.5 * 20_000 * 4 / pace
