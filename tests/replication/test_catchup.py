"""A node that was away for longer than the log is kept fetches a snapshot: what it lacks of it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cute_logger.replication import catchup
from cute_logger.replication.config import Limits
from support.replicas import Cluster, MakeCluster, append_of, until

SHORT_LOG = Limits(
    wal_segment_bytes=32 << 10,
    wal_cache_bytes=8 << 10,
    wal_retain_bytes=16 << 10,
    checkpoint_bytes=64 << 10,
    cache_bytes=16 << 10,
)
VALUE_BYTES = 2_000


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cute_logger.replication.catchup")


def fetched_bytes(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How many bytes of segments each snapshot took."""
    return [
        vars(record)["segment_bytes"]
        for record in caplog.records
        if record.message == "fetched a snapshot"
    ]


async def fill(cluster: Cluster, first: int, last: int) -> None:
    leader = await cluster.leader()
    values = [b"%06d" % number * (VALUE_BYTES // 6) for number in range(first, last)]
    for start in range(0, len(values), 50):
        batch = values[start : start + 50]
        await asyncio.gather(*(leader.append(append_of(v), timeout_s=20) for v in batch))


async def stop(cluster: Cluster, name: str) -> int:
    """Stop a node and return the newest entry it has applied."""
    applied = cluster.running[name].applied_index
    await cluster.stop(name)
    return applied


async def log_is_given_up(cluster: Cluster, index: int) -> None:
    """Wait until no running node holds the entry behind `index` any more."""
    await until(
        lambda: all(
            node._recovered.wal.first_index > index + 1 for node in cluster.running.values()
        ),
        "the log's beginning to be given up",
    )


async def all_equal(cluster: Cluster) -> None:
    await cluster.leader()
    values = [await cluster.values(name) for name in cluster.running]
    assert len(values) == 3
    assert values[0] == values[1] == values[2]


async def test_a_node_that_was_away_fetches_only_what_it_lacks(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await make_cluster(limits=SHORT_LOG)
    leader = await cluster.leader()
    away = next(name for name in cluster.running if name != leader.id)
    await fill(cluster, 0, 300)
    await cluster.append(b"known", idempotency_key="k")
    known = await stop(cluster, away)
    await fill(cluster, 300, 500)
    await log_is_given_up(cluster, known)

    await cluster.start(away)
    await all_equal(cluster)
    assert len(await cluster.values(away)) == 501
    (size,) = fetched_bytes(caplog)
    assert 150 * VALUE_BYTES < size < 250 * VALUE_BYTES
    assert (await cluster.append(b"known", idempotency_key="k")).duplicate


async def test_a_node_that_comes_late_gets_everything(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await make_cluster(limits=SHORT_LOG, starting=("n1", "n2"))
    leader = await cluster.leader()
    await leader.create_stream("empty", {}, timeout_s=10)
    await fill(cluster, 0, 300)
    await log_is_given_up(cluster, 0)

    await cluster.start("n3")
    await all_equal(cluster)
    assert fetched_bytes(caplog)
    assert cluster.running["n3"].stream("empty").high_watermark == 0


async def test_what_was_fetched_survives_and_goes_on_with_the_log(
    make_cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await make_cluster(limits=SHORT_LOG)
    leader = await cluster.leader()
    away = next(name for name in cluster.running if name != leader.id)
    known = await stop(cluster, away)
    await fill(cluster, 0, 300)
    await log_is_given_up(cluster, known)
    await cluster.start(away)
    await all_equal(cluster)
    assert fetched_bytes(caplog)

    await fill(cluster, 300, 320)
    await all_equal(cluster)
    await cluster.stop()
    await cluster.start()
    await all_equal(cluster)
    assert await cluster.leader()
    assert len(await cluster.values(away)) == 320


async def test_fetching_goes_on_with_a_new_leader(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader goes while a node fetches from it; what was staged is of use with the next."""
    monkeypatch.setattr(catchup, "PIECE_BYTES", 10_000)
    cluster = await make_cluster(limits=SHORT_LOG)
    leader = await cluster.leader()
    away = next(name for name in cluster.running if name != leader.id)
    known = await stop(cluster, away)
    await fill(cluster, 0, 400)
    await log_is_given_up(cluster, known)
    await cluster.start(away)
    behind = cluster.running[away]
    await until(lambda: behind._engine.snapshots.fetching_index is not None, "fetching to begin")
    other = next(name for name in cluster.running if name not in (away, leader.id))
    await leader.transfer_leadership(other, timeout_s=10)
    await all_equal(cluster)
