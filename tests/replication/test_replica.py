"""Three real replicas: what is acknowledged is everywhere, whoever leads and whoever was away."""

from __future__ import annotations

import asyncio
import contextlib

import pysyncobj.syncobj
import pytest

from cute_logger.replication.config import Limits
from cute_logger.replication.errors import (
    BatchTooLarge,
    BeyondHighWatermark,
    NoLeader,
    NotCaughtUp,
    NotLeader,
    OutcomeUnknown,
    ShuttingDown,
    Throttled,
    UnknownStream,
)
from cute_logger.replication.messages import PROTOCOL, AppendEntries, Hello, encode_frame
from cute_logger.replication.types import ProducerStamp
from support.replicas import Cluster, MakeCluster, append_of, until

SMALL = Limits(
    wal_segment_bytes=32 << 10,
    wal_cache_bytes=8 << 10,
    checkpoint_bytes=64 << 10,
    cache_bytes=16 << 10,
)


async def test_an_append_is_on_every_node_at_its_offset(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.append(b"a", b"b")
    receipt = await cluster.append(b"c")

    assert (receipt.first_offset, receipt.last_offset) == (2, 2)
    for name in cluster.running:
        assert await cluster.values(name) == [b"a", b"b", b"c"]


async def test_a_follower_names_the_leader_and_takes_no_write(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    follower = next(node for node in cluster.running.values() if node is not leader)

    with pytest.raises(NotLeader) as refused:
        await follower.append(append_of(b"x"), timeout_s=1)
    assert refused.value.leader == leader.id
    assert follower.leader_http == f"http://{leader.id}"


async def test_a_single_node_is_a_cluster(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(1)
    await cluster.append(b"a")
    assert await cluster.values("n1") == [b"a"]


async def test_a_new_leader_goes_on_where_the_old_one_stopped(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    old = await cluster.leader()
    first = await cluster.append(b"a", idempotency_key="k")
    await cluster.stop(old.id)

    second = await cluster.append(b"b")
    repeat = await cluster.append(b"a", idempotency_key="k")
    assert second.first_offset == 1
    assert second.term > first.term
    assert repeat.duplicate
    assert repeat.first_offset == 0

    await cluster.start(old.id)
    await cluster.leader()
    assert await cluster.values(old.id) == [b"a", b"b"]


async def test_all_of_it_survives_a_restart_of_all(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(limits=SMALL)
    values = [b"%d" % i * 500 for i in range(200)]
    for value in values:
        await cluster.append(value)
    leader = await cluster.leader()
    producer, epoch = await leader.register_producer("p", timeout_s=10)
    stamp = ProducerStamp(producer, epoch, 0)
    await cluster.append(b"last", producer=stamp)
    cluster_id = leader.status().cluster_id

    await cluster.stop()
    await cluster.start()

    leader = await cluster.leader()
    assert leader.status().cluster_id == cluster_id
    assert (await cluster.append(b"last", producer=stamp)).duplicate
    for name in cluster.running:
        assert await cluster.values(name) == [*values, b"last"]


async def test_a_node_that_was_away_catches_up_from_disk(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(limits=SMALL)
    leader = await cluster.leader()
    away = next(name for name in cluster.running if name != leader.id)
    await cluster.stop(away)
    values = [b"%03d" % i * 400 for i in range(300)]
    await asyncio.gather(*(leader.append(append_of(v), timeout_s=10) for v in values))

    await cluster.start(away)
    await cluster.leader()
    assert sorted(await cluster.values(away)) == values
    assert await cluster.values(away) == await cluster.values(leader.id)


async def test_concurrent_appends_are_atomic_and_in_one_order(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    pairs = [(b"%d a" % i, b"%d b" % i) for i in range(300)]
    receipts = await asyncio.gather(
        *(leader.append(append_of(*pair), timeout_s=10) for pair in pairs)
    )

    values = await cluster.values("n1")
    assert await cluster.values("n2") == await cluster.values("n3") == values
    assert len(values) == 600
    for pair, receipt in zip(pairs, receipts, strict=True):
        assert tuple(values[receipt.first_offset : receipt.last_offset + 1]) == pair


async def test_without_a_majority_nothing_is_acknowledged(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.append(b"a")
    leader = await cluster.leader()
    await cluster.stop(*(name for name in list(cluster.running) if name != leader.id))

    with pytest.raises((OutcomeUnknown, NoLeader)):
        await leader.append(append_of(b"lost?"), timeout_s=10)
    await until(lambda: not leader.is_leader, "stepping down")
    with pytest.raises(NoLeader):
        await leader.append(append_of(b"refused"), timeout_s=1)
    with pytest.raises(NoLeader):
        await leader.read_barrier(timeout_s=0.3)
    assert (await leader.read("s", 0, bytes_max=1000)).high_watermark == 1


async def test_leadership_is_handed_to_the_node_asked_for(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    target = next(name for name in cluster.running if name != leader.id)

    assert await leader.transfer_leadership(target, timeout_s=5) == target
    assert (await cluster.leader()).id == target
    assert (await cluster.append(b"a")).first_offset == 0


async def test_a_follower_shows_what_its_reader_saw_acknowledged(
    make_cluster: MakeCluster,
) -> None:
    cluster = await make_cluster()
    for i in range(20):
        receipt = await cluster.append(b"%d" % i)
        for node in cluster.running.values():
            await node.wait_applied(receipt.index, timeout_s=5)
            assert (await node.read("s", -1, bytes_max=1000)).high_watermark == i + 1


async def test_a_barrier_covers_everything_acknowledged_before(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    for i in range(20):
        await cluster.append(b"%d" % i)
        for node in cluster.running.values():
            await node.read_barrier(timeout_s=5)
            assert (await node.read("s", 0, bytes_max=1000)).high_watermark == i + 1


async def test_a_reader_at_the_tail_is_woken(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    for node in cluster.running.values():
        await node.read_barrier(timeout_s=5)
        hw = node.stream("s").high_watermark
        waiting = asyncio.create_task(node.read("s", hw, bytes_max=1000, wait_ms=10_000))
        await asyncio.sleep(0)
        await cluster.append(b"new")
        result = await asyncio.wait_for(waiting, 5)
        assert [record.value for record in result.batches[0].records()] == [b"new"]


async def test_a_read_beyond_the_end_or_of_nothing_is_refused(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    leader = await cluster.leader()
    with pytest.raises(BeyondHighWatermark) as beyond:
        await leader.read("s", 1, bytes_max=1000)
    assert beyond.value.facts["high_watermark"] == 0
    with pytest.raises(UnknownStream):
        await leader.read("t", 0, bytes_max=1000)
    with pytest.raises(NotCaughtUp):
        await leader.wait_applied(leader.applied_index + 1000, timeout_s=0.05)


async def test_first_record_at_or_after_a_time(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    first = await cluster.append(b"a")
    leader = await cluster.leader()
    assert await leader.find_timestamp("s", first.timestamp) == 0
    assert await leader.find_timestamp("s", first.timestamp + 3_600_000) == 1


async def test_a_body_over_the_limit_is_refused_before_it_is_proposed(
    make_cluster: MakeCluster,
) -> None:
    cluster = await make_cluster(1)
    leader = await cluster.leader()
    with pytest.raises(BatchTooLarge) as refused:
        await leader.append(append_of(bytes(5 << 20)), timeout_s=1)
    assert refused.value.facts["limit_bytes"] == 4 << 20


async def test_too_much_under_way_is_throttled_and_clears(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster(1, Limits(uncommitted_bytes=1 << 20))
    leader = await cluster.leader()
    results = await asyncio.gather(
        *(leader.append(append_of(bytes(300_000)), timeout_s=10) for _ in range(20)),
        return_exceptions=True,
    )
    throttled = [result for result in results if isinstance(result, BaseException)]
    assert throttled
    assert all(isinstance(error, Throttled) for error in throttled)
    assert (await cluster.append(b"next")).first_offset == 20 - len(throttled)


async def test_a_deleted_stream_is_gone_on_every_node_and_after_a_restart(
    make_cluster: MakeCluster,
) -> None:
    cluster = await make_cluster()
    await cluster.append(b"old")
    leader = await cluster.leader()
    await leader.delete_stream("s", timeout_s=10)
    await leader.create_stream("s", {}, timeout_s=10)
    await cluster.append(b"new")
    await cluster.stop()
    await cluster.start()
    await cluster.leader()
    for name in cluster.running:
        assert await cluster.values(name) == [b"new"]


async def test_a_stopping_node_wakes_its_readers(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    node = cluster.running["n1"]
    await node.read_barrier(timeout_s=5)
    reader = asyncio.create_task(node.read("s", 0, bytes_max=1000, wait_ms=60_000))
    await asyncio.sleep(0)
    await cluster.stop("n1")
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(reader, 5)


async def test_pysyncobj_unpickles_nothing(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("pickle was reached")

    for name in ("loads", "load", "dumps"):
        monkeypatch.setattr(pysyncobj.syncobj.pickle, name, refuse)
    cluster = await make_cluster(limits=SMALL)
    leader = await cluster.leader()
    for i in range(50):
        await cluster.append(b"%d" % i * 1000)
    await cluster.stop(leader.id)
    await cluster.append(b"x")
    await cluster.start(leader.id)
    assert len(await cluster.values((await cluster.leader()).id)) == 51
    assert all(not node.failed.done() for node in cluster.running.values())


HOSTILE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\xff" * 64,
    b"\x04\x00\x00\x00" + bytes(8) + b"abcd",
    b"\x80\x04\x95" + bytes(100),
]


@pytest.mark.parametrize("noise", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_stranger_at_the_port_harms_nobody(make_cluster: MakeCluster, noise: bytes) -> None:
    cluster = await make_cluster()
    await send_to_all(cluster, noise)
    await cluster.append(b"a")
    assert all(not node.failed.done() for node in cluster.running.values())


async def test_a_node_of_no_cluster_of_ours_is_not_heard(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    await cluster.append(b"a")
    forged = AppendEntries(99, 1, 50, 0, 0, [])
    stranger = Hello(PROTOCOL, "n9", "other", None, "", ("127.0.0.1", 1), 1000, "n1")
    anonymous = Hello(PROTOCOL, "n9", None, None, "", ("127.0.0.1", 1), 1000, "n1")
    other = Hello(PROTOCOL, "n1", "other", None, "", ("127.0.0.1", 1), 0, "n1")
    for hello in (stranger, anonymous, other, forged):
        await send_to_all(cluster, b"".join(encode_frame(hello) + encode_frame(forged)))
    assert (await cluster.append(b"b")).term < 99


async def send_to_all(cluster: Cluster, noise: bytes) -> None:
    """Say `noise` to every raft port and wait until each hangs up, or drops it as incomplete."""
    for host, port in cluster.addresses.values():
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(noise)
        writer.write_eof()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                said = await reader.read()
                assert not said or b"cluster" in said or b"this is" in said
        writer.close()
