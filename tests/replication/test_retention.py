"""Old records go: chosen by the leader, removed on every replica alike, and their disk is freed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cute_logger.replication.config import Limits
from cute_logger.replication.errors import BeyondHighWatermark, OffsetTrimmed, UnknownStream
from cute_logger.replication.retention import due_trims, kept_from
from cute_logger.replication.segments import SegmentRow, Segments
from cute_logger.replication.stream import Stream
from support.replicas import Cluster, MakeCluster, until

FAST = Limits(retention_period_s=0.05, checkpoint_after_trim_s=0.05, cache_bytes=2000)
VALUE = bytes(1000)


def stream(log_start_offset: int = 0, **config: Any) -> Stream:
    """Four segments of ten records in 100 bytes each, taken at 0-9, 10-19, 20-29 and 30-39 ms."""
    made = Stream(7, "s", {name.replace("_", "."): value for name, value in config.items()})
    rows = [SegmentRow(base, base + 10, 100, base, base + 9) for base in (0, 10, 20, 30)]
    made.segments = Segments(rows)
    made.next_offset = 40
    made.log_start_offset = log_start_offset
    return made


@pytest.mark.parametrize(
    ("config", "now_ms", "kept"),
    [
        ({}, 1000, 0),
        ({"retention_ms": -1, "retention_bytes": -1, "retention_records": -1}, 1000, 0),
        ({"retention_ms": 10}, 19, 0),
        ({"retention_ms": 10}, 20, 10),
        ({"retention_ms": 10}, 30, 20),
        ({"retention_ms": 0}, 1000, 30),
        ({"retention_bytes": 400}, 1000, 0),
        ({"retention_bytes": 301}, 1000, 0),
        ({"retention_bytes": 300}, 1000, 10),
        ({"retention_bytes": 0}, 1000, 30),
        ({"retention_records": 31}, 1000, 0),
        ({"retention_records": 30}, 1000, 10),
        ({"retention_records": 1}, 1000, 30),
        ({"retention_records": 30, "retention_bytes": 200}, 1000, 20),
        ({"retention_records": 30, "retention_ms": 10}, 40, 30),
    ],
)
def test_the_oldest_segments_go_and_the_newest_stays(
    config: dict[str, int], now_ms: int, kept: int
) -> None:
    assert kept_from(stream(**config), now_ms) == kept


def test_what_was_trimmed_by_hand_stays_trimmed() -> None:
    assert kept_from(stream(15, retention_records=30), 1000) == 15
    assert kept_from(stream(15, retention_records=20), 1000) == 20


def test_only_streams_that_hold_too_much_are_trimmed() -> None:
    streams = [stream(), stream(retention_ms=10), stream(30, retention_ms=10)]
    [trim] = due_trims(streams, 1000)
    assert (trim.name, trim.before, trim.timestamp, trim.stream_id) == ("s", 30, 1000, 7)


async def fill(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        await cluster.append(VALUE, stream="t")


async def filled(make_cluster: MakeCluster, count: int = 30, **config: Any) -> Cluster:
    """Three nodes with a stream of `count` batches, about three to a segment."""
    cluster = await make_cluster(3, FAST)
    leader = await cluster.leader()
    named = {name.replace("_", "."): value for name, value in config.items()}
    await leader.create_stream("t", {"segment.bytes": 4000, **named}, timeout_s=10)
    await fill(cluster, count)
    return cluster


def stores(tmp_path: Path) -> dict[str, dict[str, bytes]]:
    """The segment files of stream `t`, by node."""
    return {
        node: {
            store.name: store.read_bytes()
            for store in sorted((tmp_path / "0" / node / "streams/0000000002").glob("*.log"))
        }
        for node in ("n1", "n2", "n3")
    }


async def until_freed(cluster: Cluster, tmp_path: Path, segments: int) -> None:
    """Wait until all nodes hold the same bytes, as many as they say, in so many files."""

    def freed() -> bool:
        try:
            first, *others = stores(tmp_path).values()
        except FileNotFoundError:
            return False  # removed between the listing and the look
        infos = [node.stream("t") for node in cluster.running.values()]
        return (
            len(first) == segments == infos[0].segments
            and sum(map(len, first.values())) == infos[0].bytes
            and all(files == first for files in others)
            and all(info == infos[0] for info in infos)
        )

    await until(freed, "the same few files on all nodes")


async def test_retention_by_count_trims_all_replicas_alike_and_frees_their_disks(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await filled(make_cluster, retention_records=10)
    await until_freed(cluster, tmp_path, segments=4)
    for node in cluster.running.values():
        start = node.stream("t").log_start_offset
        assert 20 >= start > 15
        with pytest.raises(OffsetTrimmed) as trimmed:
            await node.read("t", start - 1, bytes_max=1)
        assert trimmed.value.facts == {"log_start_offset": start, "high_watermark": 30}
        assert (await node.read("t", None, bytes_max=1)).batches[0].next_offset > start


async def test_retention_by_age_trims_what_no_append_follows(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await filled(make_cluster, retention_ms=100)
    await until_freed(cluster, tmp_path, segments=1)


async def test_a_trim_survives_restarts_and_leaders(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await filled(make_cluster)
    leader = await cluster.leader()
    assert await leader.trim("t", 17, timeout_s=10) == 17
    assert await leader.trim("t", 5, timeout_s=10) == 17
    with pytest.raises(BeyondHighWatermark):
        await leader.trim("t", 31, timeout_s=10)
    with pytest.raises(UnknownStream):
        await leader.trim("u", 0, timeout_s=10)
    await until_freed(cluster, tmp_path, segments=5)
    await cluster.stop()
    await cluster.start()
    await cluster.leader()
    for node in cluster.running.values():
        assert node.stream("t").log_start_offset == 17
        batches = (await node.read("t", 17, bytes_max=1 << 20)).batches
        assert [batch.base_offset for batch in batches] == list(range(17, 30))
    await fill(cluster, 3)
    await until_freed(cluster, tmp_path, segments=6)


async def test_an_altered_segment_size_cuts_the_files_alike(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await filled(make_cluster, 6)
    leader = await cluster.leader()
    altering = leader.alter_stream("t", {"segment.bytes": 1500}, timeout_s=10)
    _, info = await asyncio.gather(fill(cluster, 10), altering)
    assert info.config == {"segment.bytes": 1500}
    await fill(cluster, 3)
    segments = leader.stream("t").segments
    assert segments > 5
    await cluster.stop()
    await cluster.start()
    await cluster.leader()
    await until_freed(cluster, tmp_path, segments)


async def test_a_read_that_a_trim_overtakes_is_told_so(make_cluster: MakeCluster) -> None:
    cluster = await filled(make_cluster)
    leader = await cluster.leader()

    async def read_all() -> None:
        for _ in range(100):
            for offset in range(25):
                await leader.read("t", offset, bytes_max=1)

    async def find() -> list[int]:
        return [await leader.find_timestamp("t", 0) for _ in range(100)]

    reading = asyncio.gather(read_all(), find(), return_exceptions=True)
    for before in range(1, 26):
        await leader.trim("t", before, timeout_s=10)
    refused, found = await reading
    assert isinstance(refused, OffsetTrimmed)
    assert isinstance(found, list)
    assert found == sorted(found)
    assert await leader.find_timestamp("t", 0) == 25
