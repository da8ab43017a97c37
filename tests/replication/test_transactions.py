"""Transactions: all of it or nothing, once, and the same on every replica."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.replication import groups, transactions
from cute_logger.replication.commands import (
    AcquireLease,
    Command,
    CommitOffset,
    DeleteGroup,
    RegisterProducer,
    ReleaseLease,
)
from cute_logger.replication.errors import (
    BeyondHighWatermark,
    ConditionFailed,
    IdempotencyConflict,
    LeaseLost,
    OutOfOrderSequence,
    ProducerFenced,
    RecordTooLarge,
    Refused,
    UnknownStream,
)
from support.group_feed import GroupFeed, saved

HOUR_MS = 3_600_000


@pytest.fixture
def feed() -> GroupFeed:
    made = GroupFeed()
    made.append(*[b"%d" % number for number in range(10)])
    return made


def ends(feed: GroupFeed) -> tuple[int, int]:
    return feed.machine.streams["s"].next_offset, feed.machine.streams["t"].next_offset


def check_nothing_happened(feed: GroupFeed, refused: Any, error: type, part: str, at: int) -> None:
    assert isinstance(refused, error), refused
    assert (refused.facts["part"], refused.facts["part_index"]) == (part, at)
    assert refused.detail.startswith(f"{part}[{at}]: ")
    assert ends(feed) == (10, 0)
    assert feed.committed() is None


def test_it_is_one_entry_with_a_receipt_for_each_part(feed: GroupFeed) -> None:
    lease = feed.acquire("a").lease
    done = feed.transact(
        [feed.batch(b"x", b"y", stream="t"), feed.batch(b"z")],
        [feed.part(7, lease), feed.part(2, stream="t")],
    )
    first, second = done.appends
    assert (first.stream, first.first_offset, first.last_offset) == ("t", 0, 1)
    assert (second.stream, second.first_offset) == ("s", 10)
    assert [(each.offset, each.high_watermark, each.lag) for each in done.commits] == [
        (7, 11, 4),
        (2, 2, 0),
    ]
    assert {done.index, first.index, second.index, done.commits[0].index} == {
        feed.machine.applied_index
    }
    assert not done.duplicate
    assert feed.committed() == 7


def test_one_part_that_fails_fails_all(feed: GroupFeed) -> None:
    fine, end = feed.batch(b"x", stream="t"), feed.part(10)
    cases = [
        ([fine, feed.batch(b"x", if_offset=9)], [end], ConditionFailed, "appends", 1),
        ([fine, feed.batch(b"x", stream="u")], [end], UnknownStream, "appends", 1),
        ([feed.batch(b"x" * 101), fine], [end], RecordTooLarge, "appends", 0),
        ([fine], [end, feed.part(3, stream="t")], BeyondHighWatermark, "commits", 1),
        ([fine], [end, feed.part(0, stream="u")], UnknownStream, "commits", 1),
        ([fine], [feed.part(0, 77)], LeaseLost, "commits", 0),
    ]
    for appends, commits, error, part, at in cases:
        refused = feed.transact(appends, commits, key="k")
        check_nothing_happened(feed, refused, error, part, at)
    assert feed.transact([fine], [end], key="k").duplicate is False


def test_a_zombie_appends_nothing(feed: GroupFeed) -> None:
    older = feed.acquire("a").lease
    feed.now += 1000
    feed.acquire("b")
    refused = feed.transact([feed.batch(b"x", stream="t")], [feed.part(5, older)])
    check_nothing_happened(feed, refused, LeaseLost, "commits", 0)


def test_a_part_sees_what_the_parts_before_it_do(feed: GroupFeed) -> None:
    parts = [feed.batch(b"x", b"y", if_offset=10), feed.batch(b"z", if_offset=12)]
    done = feed.transact(parts, [feed.part(13)])
    assert [receipt.first_offset for receipt in done.appends] == [10, 12]
    assert done.commits[0].lag == 0


def test_a_repeat_under_its_key_answers_the_first_receipts(feed: GroupFeed) -> None:
    lease = feed.acquire("a").lease
    parts = [feed.batch(b"x", stream="t", if_offset=0)]
    first = feed.transact(parts, [feed.part(5, lease)], key="k")
    feed.append(b"other", stream="t")
    feed.now += 1000
    newer = feed.acquire("b").lease
    feed.commit(9, newer)

    for commit in (feed.part(5, lease), feed.part(5, newer)):
        repeat = feed.transact(parts, [commit], key="k")
        assert repeat.duplicate
        assert repeat.appends[0].duplicate
        assert (repeat.index, repeat.commits) == (first.index, first.commits)
        assert repeat.appends[0].first_offset == 0
    assert ends(feed) == (10, 2)
    assert feed.committed() == 9


def test_a_key_used_for_another_transaction_is_a_conflict(feed: GroupFeed) -> None:
    feed.transact([feed.batch(b"x")], [], key="k")
    for appends, commits in (
        ([feed.batch(b"y")], []),
        ([feed.batch(b"x", stream="t")], []),
        ([feed.batch(b"x")], [feed.part(1)]),
    ):
        assert isinstance(feed.transact(appends, commits, key="k"), IdempotencyConflict)


def test_a_key_is_forgotten_when_its_window_is_over_by_log_time(feed: GroupFeed) -> None:
    feed.transact([feed.batch(b"x")], [], key="k")
    feed.now += 25 * HOUR_MS
    feed.transact([feed.batch(b"x")], [], key="l")
    assert [key for key, _ in feed.machine.transactions.dump()] == ["l"]
    assert not feed.transact([feed.batch(b"x")], [], key="k").duplicate


def test_the_newest_keys_are_remembered(feed: GroupFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "REMEMBERED_PARTS_MAX", 8)
    for key in "abcd":
        feed.transact([feed.batch(b"x")], [feed.part(1)], key=key)
    assert [key for key, _ in feed.machine.transactions.dump()] == ["c", "d"]
    copy = feed.copy()
    copy.transact([feed.batch(b"x")], [feed.part(1)], key="e")
    assert [key for key, _ in copy.machine.transactions.dump()] == ["d", "e"]


def test_producers_sequences_go_on_within_and_behind_it(feed: GroupFeed) -> None:
    producer, epoch = feed(RegisterProducer("p", feed.now))
    parts = [feed.batch(b"x", producer=(producer, epoch, number)) for number in range(2)]
    feed.transact(parts, [])
    assert feed.append(b"x", producer=(producer, epoch, 2)).first_offset == 12

    gap = feed.transact([feed.batch(b"x", producer=(producer, epoch, n)) for n in (3, 5)], [])
    assert isinstance(gap, OutOfOrderSequence)
    assert gap.facts == {"expected": 4, "part": "appends", "part_index": 1}
    again = feed.transact(parts, [])
    assert isinstance(again, IdempotencyConflict), "part of it may have been done alone"
    feed(RegisterProducer("p", feed.now))
    fenced = feed.transact([feed.batch(b"x", producer=(producer, epoch, 3))], [])
    assert isinstance(fenced, ProducerFenced)
    assert ends(feed) == (13, 0)


# ---- any history

names = st.sampled_from("gh")
streams = st.sampled_from("st")
offsets = st.integers(0, 8)
leases = st.none() | st.integers(1, 4)
members = st.sampled_from("ab")
keys = st.none() | st.sampled_from("kl")
pauses = st.sampled_from([0, 1, 400, 1000, -500])
commits = st.builds(CommitOffset, names, streams, offsets, leases, st.just(0))
batches = st.tuples(st.sampled_from("stu"), st.integers(1, 3), st.none() | offsets)
commands = st.one_of(
    commits,
    batches,
    st.builds(AcquireLease, names, streams, members, st.sampled_from([1, 500, 2000]), st.just(0)),
    st.builds(ReleaseLease, names, streams, leases, st.none() | members, st.just(0)),
    st.builds(DeleteGroup, names, st.just(0)),
    st.tuples(st.lists(batches, max_size=3), st.lists(commits, max_size=2), keys),
)
histories = st.lists(st.tuples(pauses, commands), max_size=30)


def feed_one(feed: GroupFeed, step: Any) -> Any:
    """Feed a step of a history; commands get the time of the feed."""
    if isinstance(step, Command):
        fields = {name: getattr(step, name) for name in step.__struct_fields__}
        return feed(type(step)(**fields | {"timestamp": feed.now}))
    if isinstance(step[1], int):
        return feed(batch_of(feed, step))
    appends, parts, key = step
    return feed.transact([batch_of(feed, part) for part in appends], parts, key)


def batch_of(feed: GroupFeed, part: tuple[str, int, int | None]) -> Any:
    stream, count, if_offset = part
    return feed.batch(*[b"v"] * count, stream=stream, if_offset=if_offset)


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(0, 30))
def test_a_replica_restored_in_the_middle_ends_in_the_same_state(history: Any, at: int) -> None:
    feed = GroupFeed()
    copy = feed.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "POSITIONS_MAX", 3)
        patch.setattr(transactions, "REMEMBERED_PARTS_MAX", 6)
        for number, (pause, step) in enumerate(history):
            if number == at:
                copy = feed.copy()
            feed.now += pause
            copy.now = feed.now
            before, of_copy = feed_one(feed, step), feed_one(copy, step)
            assert repr(before) == repr(of_copy)
    assert saved(feed.machine) == saved(copy.machine)


@settings(max_examples=60, deadline=None)
@given(histories)
def test_what_is_refused_changes_nothing_and_what_is_done_is_done_whole(history: Any) -> None:
    feed = GroupFeed()
    newest: dict[tuple[str, str], int] = {}
    for pause, step in history:
        feed.now += pause
        before = observable(feed)
        outcome = feed_one(feed, step)
        if isinstance(outcome, Refused):
            assert observable(feed) == before
        elif isinstance(step, AcquireLease):
            place = (step.group, step.stream)
            assert outcome.lease >= newest.get(place, 0)
            newest[place] = outcome.lease
        elif isinstance(step, CommitOffset):
            check_commit(feed, step, newest)
        elif isinstance(step, tuple) and not isinstance(step[1], int) and not outcome.duplicate:
            assert len(outcome.appends) == len(step[0])
            grown = sum(count for _, count, _ in step[0])
            assert sum(ends(feed)) == sum(before[0]) + grown
            for commit in step[1]:
                check_commit(feed, commit, newest, is_last=len(step[1]) == 1)


def check_commit(
    feed: GroupFeed, commit: CommitOffset, newest: dict[Any, int], *, is_last: bool = True
) -> None:
    """It was done, so it carried the newest lease of its place or none."""
    place = (commit.group, commit.stream)
    assert commit.lease in (None, newest.get(place))
    if is_last:
        assert feed.committed(*place) == commit.offset


def observable(feed: GroupFeed) -> Any:
    return ends(feed), feed.machine.groups.dump(), feed.machine.transactions.dump()
