"""What apply decides: dedupe first, then limits, then conditions; and the same on every replica."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from cute_logger.replication import snapshot
from cute_logger.replication.commands import (
    AcquireLease,
    AlterStream,
    AppendBatch,
    Command,
    CommitOffset,
    CreateStream,
    DeleteGroup,
    DeleteStream,
    InitCluster,
    RegisterProducer,
    ReleaseLease,
    Transact,
    TrimStream,
    decode_commands,
    encode_commands,
)
from cute_logger.replication.dedupe import WINDOW_BATCHES
from cute_logger.replication.errors import (
    ConditionFailed,
    IdempotencyConflict,
    OutOfOrderSequence,
    ProducerExpired,
    ProducerFenced,
    RecordTooLarge,
    StreamExists,
    UnknownStream,
)
from cute_logger.storage.log import LogState
from support.applied import Applied

HOUR_MS = 3_600_000


@pytest.fixture
def applied() -> Applied:
    feed = Applied()
    feed(CreateStream("s", {"max.message.bytes": 100}, feed.now))
    return feed


def test_offsets_are_dense_and_the_receipt_says_where(applied: Applied) -> None:
    first = applied.append(b"a", b"b")
    second = applied.append(b"c")

    assert (first.first_offset, first.last_offset, first.count) == (0, 1, 2)
    assert (second.first_offset, second.last_offset) == (2, 2)
    assert second.index == applied.machine.applied_index
    assert not second.duplicate


def test_commands_of_one_entry_are_applied_in_order(applied: Applied) -> None:
    first, second = applied(applied.batch(b"a"), applied.batch(b"b"))
    assert (first.first_offset, second.first_offset) == (0, 1)


def test_timestamps_never_go_back_within_a_stream(applied: Applied) -> None:
    assert applied.append(b"a", timestamp=5_000_000).timestamp == 5_000_000
    assert applied.append(b"b", timestamp=4_000_000).timestamp == 5_000_000


def test_an_unknown_stream_is_refused(applied: Applied) -> None:
    assert isinstance(applied.append(b"a", stream="t"), UnknownStream)


def test_a_condition_on_the_next_offset(applied: Applied) -> None:
    applied.append(b"a")
    failed = applied.append(b"b", if_offset=0)
    assert isinstance(failed, ConditionFailed)
    assert failed.facts["actual"] == 1
    assert applied.append(b"b", if_offset=1).first_offset == 1


def test_a_record_over_the_streams_limit_is_refused(applied: Applied) -> None:
    refused = applied.append(b"x" * 101)
    assert isinstance(refused, RecordTooLarge)
    assert refused.facts["limit_bytes"] == 100
    assert applied.append(b"x" * 100).first_offset == 0


def test_a_repeated_key_answers_the_first_receipt(applied: Applied) -> None:
    first = applied.append(b"a", key="k")
    applied.append(b"other")
    repeat = applied.append(b"a", key="k")
    assert repeat.duplicate
    assert (repeat.first_offset, repeat.index) == (first.first_offset, first.index)
    assert applied.machine.streams["s"].next_offset == 2


def test_a_repeat_is_recognised_before_its_condition_is_judged(applied: Applied) -> None:
    applied.append(b"a", key="k", if_offset=0)
    assert applied.append(b"a", key="k", if_offset=0).duplicate


def test_a_key_used_for_other_records_is_a_conflict(applied: Applied) -> None:
    applied.append(b"a", key="k")
    assert isinstance(applied.append(b"b", key="k"), IdempotencyConflict)


def test_a_key_is_forgotten_when_its_window_is_over_by_log_time(applied: Applied) -> None:
    applied.append(b"a", key="k")
    applied.append(b"later", timestamp=applied.now + 25 * HOUR_MS)
    again = applied.append(b"a", key="k")
    assert not again.duplicate
    assert again.first_offset == 2


def test_sequences_are_appended_once_and_in_order(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    first = applied.append(b"a", producer=(producer, epoch, 0))
    gap = applied.append(b"c", producer=(producer, epoch, 2))
    repeat = applied.append(b"a", producer=(producer, epoch, 0))
    second = applied.append(b"b", producer=(producer, epoch, 1))

    assert isinstance(gap, OutOfOrderSequence)
    assert gap.facts["expected"] == 1
    assert repeat.duplicate
    assert repeat.index == first.index
    assert (second.first_offset, second.duplicate) == (1, False)


def test_a_refused_append_does_not_use_up_its_sequence(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    refused = applied.append(b"a", producer=(producer, epoch, 0), if_offset=9)
    assert isinstance(refused, ConditionFailed)
    assert applied.append(b"a", producer=(producer, epoch, 0)).first_offset == 0


def test_a_sequence_used_for_other_records_is_a_conflict(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    applied.append(b"a", producer=(producer, epoch, 0))
    assert isinstance(applied.append(b"b", producer=(producer, epoch, 0)), IdempotencyConflict)


def test_a_repeat_older_than_the_window_is_never_appended_again(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    for sequence in range(WINDOW_BATCHES + 1):
        applied.append(b"%d" % sequence, producer=(producer, epoch, sequence))
    refused = applied.append(b"0", producer=(producer, epoch, 0))
    assert isinstance(refused, OutOfOrderSequence)


def test_a_name_fences_its_older_epoch(applied: Applied) -> None:
    producer, first = applied(RegisterProducer("p", applied.now))
    applied.append(b"a", producer=(producer, first, 0))
    same, second = applied(RegisterProducer("p", applied.now))

    assert (same, second) == (producer, first + 1)
    assert isinstance(applied.append(b"b", producer=(producer, first, 1)), ProducerFenced)
    assert applied.append(b"b", producer=(producer, second, 0)).first_offset == 1


def test_a_forgotten_producer_may_not_go_on(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    applied.append(b"a", producer=(producer, epoch, 0))
    applied(RegisterProducer(None, applied.now + 8 * 24 * HOUR_MS))
    for sequence in (0, 1):
        expired = applied.append(b"b", producer=(producer, epoch, sequence))
        assert isinstance(expired, ProducerExpired)


def test_an_id_nobody_was_given_may_begin_and_is_never_given_out(applied: Applied) -> None:
    assert applied.append(b"a", producer=(7, 0, 0)).first_offset == 0
    assert applied.append(b"a", producer=(7, 0, 0)).duplicate
    given, _ = applied(RegisterProducer(None, applied.now))
    assert given > 7
    assert isinstance(applied.append(b"x", producer=(1 << 40, 0, 0)), ProducerExpired)


def test_creating_a_stream_again_needs_the_same_config(applied: Applied) -> None:
    same, created = applied(CreateStream("s", {"max.message.bytes": 100}, applied.now))
    assert not created
    assert same.name == "s"
    assert isinstance(applied(CreateStream("s", {}, applied.now)), StreamExists)


def test_a_deleted_streams_successor_begins_anew(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer(None, applied.now))
    applied.append(b"a", producer=(producer, epoch, 0), key=None)
    assert applied(DeleteStream("s", applied.now)) is None
    assert isinstance(applied(DeleteStream("s", applied.now)), UnknownStream)
    applied(CreateStream("s", {}, applied.now))
    assert applied.append(b"z", producer=(producer, epoch, 0)).first_offset == 0


def test_the_first_cluster_id_stays(applied: Applied) -> None:
    assert applied(InitCluster("one", applied.now)) == "one"
    assert applied(InitCluster("two", applied.now)) == "one"


def test_replicas_fed_the_same_entries_hold_the_same_bytes(applied: Applied) -> None:
    other = Applied()
    other(CreateStream("s", {"max.message.bytes": 100}, other.now))
    for feed in (applied, other):
        feed.append(b"a", b"b", key="k")
        feed.append(b"c", timestamp=5)
    assert applied.machine.unwritten[1].runs == other.machine.unwritten[1].runs


def test_each_batch_carries_the_digest_of_the_one_before(applied: Applied) -> None:
    for value in (b"a", b"b", b"c"):
        applied.append(value)
    batches = itertools.chain(*applied.machine.unwritten[1].runs)
    for before, after in itertools.pairwise(batches):
        assert after.chain == before.digest()


def test_a_snapshot_restores_everything_apply_decides_by(applied: Applied) -> None:
    producer, epoch = applied(RegisterProducer("p", applied.now))
    applied.append(b"a", producer=(producer, epoch, 0))
    applied.append(b"b", key="k")
    applied(InitCluster("one", applied.now))
    size_bytes = applied.machine.streams["s"].segments.size_bytes
    files = {1: LogState(0, 2, ((0, size_bytes),))}
    sections = list(snapshot.Snapshot(applied.machine).sections(files))

    restored = Applied()
    assert snapshot.restore(sections, restored.machine) == files
    for feed in (applied, restored):
        assert feed.append(b"a", producer=(producer, epoch, 0)).duplicate
        assert feed.append(b"b", key="k").duplicate
        assert feed(RegisterProducer("p", feed.now)) == (producer, epoch + 1)
        assert feed(RegisterProducer(None, feed.now)) == (producer + 1, 0)
        assert feed(CreateStream("t", {}, feed.now))[0].high_watermark == 0
    before, after = applied.append(b"c"), restored.append(b"c")
    assert before == after
    assert applied.machine.streams["s"].chain == restored.machine.streams["s"].chain
    assert restored.machine.cluster_id == "one"


def test_a_batch_says_how_its_body_is_compressed(applied: Applied) -> None:
    for codec in (0, 1, 2, 255):
        applied.append(b"a", codec=codec)
    batches = applied.machine.recent.read(1, 0, 1 << 20)
    assert batches is not None
    assert [batch.codec for batch in batches] == [0, 1, 2, 255]


def test_an_append_from_before_there_were_codecs_is_not_compressed(applied: Applied) -> None:
    *fields, codec = msgspec.to_builtins(applied.batch(b"a"), builtin_types=(bytes,))
    assert codec == 0
    (command,) = decode_commands(memoryview(msgspec.msgpack.encode([fields])))
    assert command == applied.batch(b"a")


def test_commands_survive_encoding() -> None:
    commands: list[Command] = [
        AppendBatch("s", b"\xff", 1, 1, 2, None, 3, (1, 2, 3), "k", bytes(16)),
        CreateStream("s", {"a": 1, "b": "x", "c": True}, 1),
        DeleteStream("s", 1),
        RegisterProducer(None, 1),
        InitCluster("c", 1),
        TrimStream("s", 3, 1, 2),
        AlterStream("s", {"a": 1}, 1),
        CommitOffset("g", "s", 3, None, 1),
        AcquireLease("g", "s", "m", 5, 1),
        ReleaseLease("g", "s", 1, None, 1),
        DeleteGroup("g", 1),
    ]
    commits = [CommitOffset("g", "s", 3, 7, 1)]
    commands.append(Transact(commands[:1], commits, "k", bytes(16), 1))
    assert decode_commands(memoryview(encode_commands(commands))) == commands
