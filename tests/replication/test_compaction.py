"""Compaction through the log: agreed upon in one entry, done by every replica to its own files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cute_logger.replication import snapshot
from cute_logger.replication.commands import (
    AlterStream,
    CompactedRun,
    CompactStream,
    CreateStream,
    DeleteStream,
    TrimStream,
)
from cute_logger.replication.compaction import pass_over
from cute_logger.replication.config import Limits
from cute_logger.replication.errors import InvalidRequest, StreamImmutable
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.recent import Recent
from cute_logger.replication.replica import Replica
from cute_logger.replication.retention import kept_from
from cute_logger.replication.segments import SegmentRow, Segments
from cute_logger.replication.stream import Stream
from cute_logger.replication.types import Append
from cute_logger.storage.compaction import pack_mask
from cute_logger.storage.log import LogState
from cute_logger.storage.log_state import Compacted
from cute_logger.storage.names import SegmentName
from cute_logger.storage.record import Record, StoredRecord, encode_records
from support.applied import Applied
from support.replicas import Cluster, MakeCluster, until

FAST = Limits(
    retention_period_s=0.05,
    checkpoint_after_trim_s=0.05,
    cache_bytes=2000,
    compaction_period_s=0.05,
    compaction_bytes_per_s=1 << 30,
)
COMPACT = {"cleanup.policy": "compact", "segment.bytes": 4000, "min.cleanable.dirty.ratio": "0.1"}
DIGEST, BRIDGE = b"d" * 16, b"b" * 16


def stream(cleaned_until: int = 0, **config: Any) -> Stream:
    """Four segments of ten records in 100 bytes each, taken at 0-9, 10-19, 20-29 and 30-39 ms."""
    names = {name.replace("_", "."): value for name, value in config.items()}
    made = Stream(7, "s", {"cleanup.policy": "compact"} | names)
    rows = [SegmentRow(base, base + 10, 100, base, base + 9) for base in (0, 10, 20, 30)]
    made.segments = Segments(rows)
    made.next_offset = 40
    made.cleaned_until = cleaned_until
    return made


def run(*bases: int, end: int, size: int = 150, records: int = 5) -> CompactedRun:
    inputs = [SegmentName(base) for base in bases]
    return CompactedRun(inputs, end, pack_mask(b"\1"), size, records, DIGEST, BRIDGE)


@pytest.mark.parametrize(
    ("config", "cleaned_until", "now_ms", "end_offset"),
    [
        ({}, 0, 1000, 30),
        ({"cleanup_policy": "delete"}, 0, 1000, None),
        ({"cleanup_policy": "compact,delete"}, 0, 1000, 30),
        ({"immutable": True}, 0, 1000, None),
        ({}, 10, 1000, 30),
        ({}, 20, 1000, None),
        ({}, 30, 1000, None),
        ({"min_cleanable_dirty_ratio": "0.3"}, 20, 1000, 30),
        ({"max_compaction_lag_ms": 30}, 20, 50, None),
        ({"max_compaction_lag_ms": 30}, 20, 51, 30),
        ({"min_compaction_lag_ms": 20}, 0, 39, 20),
        ({"min_compaction_lag_ms": 20}, 0, 28, None),
    ],
)
def test_what_is_due(
    config: dict[str, Any], cleaned_until: int, now_ms: int, end_offset: int | None
) -> None:
    found = pass_over(stream(cleaned_until, **config), now_ms)
    assert (found.end_offset if found is not None else None) == end_offset


def test_a_tombstone_has_its_time_from_the_pass_that_removed_what_it_deletes() -> None:
    made = stream(delete_retention_ms=1600)
    made.cleaned(10, 5_000)
    assert made.tombstones_below(6_599) == 0
    assert made.tombstones_below(6_600) == 10
    made.cleaned(20, 5_050)
    made.cleaned(25, 5_100)
    assert made.tombstones_below(6_650) == 10, "noted with the next one only: kept too long"
    assert made.tombstones_below(6_700) == 25
    made.cleaned(30, 9_000)
    assert made.cleanings == [(25, 5_100), (30, 9_000)]


def test_a_run_takes_the_place_of_the_segments_it_was_made_of() -> None:
    segments = stream().segments
    assert segments.replace(run(10, 20, end=30))
    assert [(row.base_offset, row.end_offset, row.generation) for row in segments.rows()] == [
        (0, 10, 0),
        (10, 30, 1),
        (30, 40, 0),
    ]
    assert (segments.size_bytes, segments.count) == (350, 25)
    row = segments.rows()[1]
    assert (row.first_timestamp, row.last_timestamp) == (10, 29)


@pytest.mark.parametrize(
    "other",
    [
        run(10, 20, end=29),
        run(10, 30, end=40),
        run(20, 30, end=40),
        run(5, end=10),
        CompactedRun([SegmentName(10, 1)], 20, b"", 100, 1, DIGEST, BRIDGE),
    ],
)
def test_segments_that_are_others_now_stay(other: CompactedRun) -> None:
    segments = stream().segments
    before = segments.rows()
    assert not segments.replace(other)
    assert segments.rows() == before


def test_retention_counts_the_records_that_are_left() -> None:
    made = stream(cleanup_policy="compact,delete", retention_records=20)
    assert made.segments.replace(run(0, 10, end=20, records=1))
    assert kept_from(made, 1000) == 20
    made.config["retention.records"] = 21
    assert kept_from(made, 1000) == 0
    made.config["cleanup.policy"] = "compact"
    made.config["retention.records"] = 0
    assert kept_from(made, 1000) == 0


@pytest.fixture
def applied() -> Applied:
    """A stream `s` of three batches, each in a segment of its own."""
    feed = Applied()
    config = COMPACT | {"segment.bytes": 1}
    feed(CreateStream("s", config, feed.now))
    for value in (b"a", b"b", b"c"):
        feed.append(value)
    return feed


def compacts(machine: StateMachine, *bases: int, end: int, cleaned: int = 0) -> CompactStream:
    stream_id = machine.streams["s"].id
    made = run(*bases, end=end, records=1) if bases else None
    return CompactStream("s", stream_id, made, cleaned, 1_000_000)


def test_an_entry_changes_the_list_at_once_and_the_files_wait(applied: Applied) -> None:
    machine = applied.machine
    assert applied(compacts(machine, 0, 1, end=2)) is True
    assert [row.name for row in machine.streams["s"].segments.rows()] == [(0, 1), (2, 0)]
    assert [each[0] for each in machine.compactions] == [machine.streams["s"].id]
    assert applied(compacts(machine, 0, 1, end=2)) is False, "a second time"
    assert applied(compacts(machine, end=0, cleaned=2)) is True
    assert machine.streams["s"].cleaned_until == 2
    applied(DeleteStream("s", applied.now))
    assert not machine.compactions


def test_a_stream_that_is_not_compacted_any_more_stays_as_it_is(applied: Applied) -> None:
    applied(AlterStream("s", {"cleanup.policy": "delete"}, applied.now))
    assert applied(compacts(applied.machine, 0, 1, end=2)) is False


def test_a_checkpoint_keeps_what_waits_to_be_done(applied: Applied) -> None:
    """Until the files are as the list says, and whether or not the node has noticed."""
    machine = applied.machine
    segments = machine.streams["s"].segments.rows()
    extents = [(row.base_offset, row.size_bytes) for row in segments]
    applied(compacts(machine, 0, 1, end=2))
    before = LogState(0, 3, tuple(extents))
    seam = Compacted(0, 1, DIGEST, BRIDGE)
    after = LogState(0, 3, ((0, 150), extents[2]), (seam,))
    for state, waiting in ((before, 1), (after, 0)):
        taken = snapshot.Snapshot(machine)
        stream_id = machine.streams["s"].id
        sections = list(taken.sections({stream_id: state}))
        other = StateMachine(Recent(0), 0)
        assert snapshot.restore(sections, other) == {stream_id: state}
        assert len(other.compactions) == waiting
        assert other.streams["s"].segments.rows() == machine.streams["s"].segments.rows()
    wrong = LogState(0, 3, ((0, 150), extents[2]), (seam._replace(bridge=DIGEST),))
    with pytest.raises(AssertionError, match="not cut"):
        list(snapshot.Snapshot(machine).sections({machine.streams["s"].id: wrong}))


def test_records_without_a_key_are_refused(applied: Applied) -> None:
    refused = applied.append(b"x", keyless=1)
    assert isinstance(refused, InvalidRequest)
    assert refused.facts == {"field": "records"}
    applied(AlterStream("s", {"cleanup.policy": "delete"}, applied.now))
    assert applied.append(b"x", keyless=1).first_offset == 3


def test_an_immutable_stream_keeps_everything(applied: Applied) -> None:
    refused = applied(AlterStream("s", {"immutable": True}, applied.now))
    assert isinstance(refused, InvalidRequest), "it is compacted"
    change = {"immutable": True, "cleanup.policy": "delete"}
    applied(AlterStream("s", change, applied.now))
    for command in (
        TrimStream("s", 1, applied.now),
        DeleteStream("s", applied.now),
        AlterStream("s", {"immutable": False}, applied.now),
        AlterStream("s", {"retention.ms": 5}, applied.now),
        AlterStream("s", {"cleanup.policy": "compact"}, applied.now),
    ):
        assert isinstance(applied(command), StreamImmutable), command
    assert applied(compacts(applied.machine, 0, 1, end=2)) is False
    assert applied(AlterStream("s", {"immutable": True, "segment.bytes": 5}, applied.now)).config
    assert applied(TrimStream("s", 0, applied.now)) == 0


# ---- whole replicas


async def append(cluster: Cluster, key: int, value: bytes | None) -> None:
    body = encode_records([Record(value, b"key %d" % key)])
    leader = await cluster.leader()
    await leader.append(Append("t", body, 1, 300), timeout_s=10)


def stores(tmp_path: Path) -> list[dict[str, bytes]]:
    return [
        {
            store.name: store.read_bytes()
            for store in sorted((tmp_path / "0" / node / "streams/0000000002").glob("*.log"))
        }
        for node in ("n1", "n2", "n3")
    ]


async def until_compacted(cluster: Cluster, tmp_path: Path) -> None:
    """Wait until all nodes have the same files, as the list says, most of them compacted."""

    def done() -> bool:
        try:
            first, *others = stores(tmp_path)
        except FileNotFoundError:
            return False
        infos = [node.stream("t") for node in cluster.running.values()]
        machines = [node._machine for node in cluster.running.values()]
        return (
            all(pass_over(machine.streams["t"], 0) is None for machine in machines)
            and len(first) == infos[0].segments
            and sum(map(len, first.values())) == infos[0].bytes
            and infos[0].segments <= 5
            and all(files == first for files in others)
            and all(info == infos[0] for info in infos)
        )

    await until(done, "the same few files on all nodes")


async def test_all_replicas_compact_alike_and_a_restart_finds_it(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster(3, FAST)
    await (await cluster.leader()).create_stream("t", COMPACT, timeout_s=10)
    for number in range(60):
        await append(cluster, number % 4, b"%d " % number * 60)
    await until_compacted(cluster, tmp_path)
    node = cluster.running["n2"]
    found = await node.read("t", 0, bytes_max=1 << 20)
    left = [record.offset for batch in found.batches for record in batch.records()]
    assert left[-4:] == [56, 57, 58, 59]
    assert len(left) < 30
    assert await node.tail_offset("t", 2) == 58
    assert await node.tail_offset("t", len(left)) == left[0]
    assert await node.tail_offset("t", len(left) - 1) == left[1]
    assert await node.tail_offset("t", 1000) == 0
    await cluster.stop()
    await cluster.start()
    await cluster.leader()
    node = cluster.running["n2"]
    await until(lambda: node.ready, "n2 has caught up")
    again = await node.read("t", 0, bytes_max=1 << 20)
    assert [record.offset for batch in again.batches for record in batch.records()] == left


async def everything(node: Replica, name: str) -> list[StoredRecord]:
    at, found = 0, []
    while batches := (await node.read(name, at, bytes_max=300)).batches:
        found += [record for batch in batches for record in batch.records() if record.offset >= at]
        at = batches[-1].next_offset
    return found


async def test_reads_show_the_same_from_memory_and_from_files(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster(3, dataclasses.replace(FAST, cache_bytes=1 << 24))
    leader = await cluster.leader()
    await leader.create_stream("t", COMPACT, timeout_s=10)
    for number in range(60):
        await append(cluster, number % 4, b"%d " % number * 60)
    await until_compacted(cluster, tmp_path)
    seen = [await everything(node, "t") for node in cluster.running.values()]
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) < 30
    assert [await node.tail_offset("t", 10) for node in cluster.running.values()] == [
        seen[0][-10].offset
    ] * 3
    await cluster.stop()
    await cluster.start()
    await cluster.leader()
    node = cluster.running["n2"]
    await until(lambda: node.ready, "n2 has caught up")
    assert await everything(node, "t") == seen[0]
