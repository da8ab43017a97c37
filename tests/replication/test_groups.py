"""Consumer groups: what is committed stays, and an older lease commits nothing."""

from __future__ import annotations

import pytest

from cute_logger.replication import groups
from cute_logger.replication.commands import (
    CreateStream,
    DeleteGroup,
    DeleteStream,
    TrimStream,
)
from cute_logger.replication.errors import (
    BeyondHighWatermark,
    ConditionFailed,
    LeaseLost,
    Throttled,
    UnknownGroup,
    UnknownStream,
)
from support.group_feed import GroupFeed, saved


@pytest.fixture
def feed() -> GroupFeed:
    made = GroupFeed()
    made.append(*[b"%d" % number for number in range(10)])
    return made


def test_a_commit_tells_the_lag(feed: GroupFeed) -> None:
    receipt = feed.commit(4)
    assert (receipt.offset, receipt.high_watermark, receipt.lag) == (4, 10, 6)
    assert receipt.index == feed.machine.applied_index
    assert feed.committed() == 4


def test_a_commit_is_idempotent_and_may_go_back_without_a_lease(feed: GroupFeed) -> None:
    for offset in (4, 4, 10, 0):
        assert feed.commit(offset).offset == offset


def test_nobody_has_come_further_than_the_end(feed: GroupFeed) -> None:
    refused = feed.commit(11)
    assert isinstance(refused, BeyondHighWatermark)
    assert refused.facts["high_watermark"] == 10
    assert "g" not in feed.machine.groups


def test_groups_and_streams_are_apart(feed: GroupFeed) -> None:
    feed.commit(4)
    feed.commit(0, stream="t")
    feed.commit(7, group="h")
    assert [feed.committed(*place) for place in (("g", "s"), ("g", "t"), ("h", "s"))] == [4, 0, 7]
    assert feed.machine.groups.names() == ["g", "h"]


def test_an_unknown_stream_is_refused(feed: GroupFeed) -> None:
    assert isinstance(feed.commit(0, stream="u"), UnknownStream)
    assert isinstance(feed.acquire("a", stream="u"), UnknownStream)
    assert len(feed.machine.groups) == 0


def test_a_trim_leaves_the_offset(feed: GroupFeed) -> None:
    feed.commit(4)
    feed(TrimStream("s", 8, feed.now))
    assert feed.committed() == 4


def test_years_leave_the_offset(feed: GroupFeed) -> None:
    feed.commit(4)
    feed.now += 10 * 365 * 24 * 3_600_000
    feed.append(b"later")
    feed.commit(0, group="h")
    assert feed.committed() == 4


def test_an_offset_goes_with_its_stream(feed: GroupFeed) -> None:
    feed.commit(4)
    feed.commit(0, stream="t")
    lease = feed.acquire("a").lease
    feed(DeleteStream("s", feed.now))
    feed(CreateStream("s", {}, feed.now))
    assert feed.committed() is None
    assert feed.committed(stream="t") == 0
    assert isinstance(feed.commit(0, lease), LeaseLost)

    feed(DeleteStream("t", feed.now))
    assert "g" not in feed.machine.groups


def test_a_lease_keeps_others_out_until_it_expires(feed: GroupFeed) -> None:
    feed.commit(2)
    first = feed.acquire("a", ttl_ms=1000)
    assert (first.expires_in_ms, first.offset) == (1000, 2)

    feed.now += 999
    kept_out = feed.acquire("b")
    assert isinstance(kept_out, LeaseLost)
    assert kept_out.facts == {"member": "a", "expires_in_ms": 1}
    feed.now += 1
    second = feed.acquire("b")
    assert second.lease > first.lease


def test_an_older_lease_commits_nothing(feed: GroupFeed) -> None:
    older = feed.acquire("a").lease
    feed.now += 1000
    newer = feed.acquire("b").lease
    feed.commit(3, newer)
    refused = feed.commit(5, older)
    assert isinstance(refused, LeaseLost)
    assert refused.facts["member"] == "b"
    assert feed.committed() == 3
    feed.now += 5000
    assert isinstance(feed.commit(5, older), LeaseLost), "whoever came after, came after"


def test_a_slow_holder_that_nobody_replaced_may_go_on(feed: GroupFeed) -> None:
    lease = feed.acquire("a").lease
    feed.now += 60_000
    assert feed.commit(5, lease).offset == 5
    assert feed.acquire("a").lease == lease


def test_without_a_lease_nobody_commits_while_it_is_held(feed: GroupFeed) -> None:
    lease = feed.acquire("a").lease
    assert isinstance(feed.commit(5), LeaseLost)
    feed.now += 1000
    assert feed.commit(5).offset == 5
    assert isinstance(feed.commit(6, lease), LeaseLost), "it would overwrite what it does not know"


def test_under_a_lease_a_late_copy_cannot_go_back(feed: GroupFeed) -> None:
    lease = feed.acquire("a").lease
    feed.commit(6, lease)
    late = feed.commit(5, lease)
    assert isinstance(late, ConditionFailed)
    assert late.facts["actual"] == 6
    assert feed.commit(6, lease).offset == 6


def test_the_same_member_renews(feed: GroupFeed) -> None:
    lease = feed.acquire("a", ttl_ms=1000).lease
    feed.now += 900
    assert feed.acquire("a", ttl_ms=1000).lease == lease
    feed.now += 900
    assert isinstance(feed.acquire("b"), LeaseLost)


def test_a_released_lease_is_free_at_once(feed: GroupFeed) -> None:
    feed.commit(2)
    lease = feed.acquire("a").lease
    assert isinstance(feed.release(member="b"), LeaseLost)
    assert feed.release(lease) is None
    assert feed.release(lease) is None
    assert isinstance(feed.commit(3, lease), LeaseLost)
    assert feed.committed() == 2
    newer = feed.acquire("b").lease
    assert isinstance(feed.release(lease), LeaseLost)
    assert feed.release(member="b") is None
    assert feed.acquire("a").lease > newer > lease


def test_a_group_that_only_held_a_lease_goes_with_it(feed: GroupFeed) -> None:
    feed.release(feed.acquire("a").lease)
    assert "g" not in feed.machine.groups


def test_leases_of_all_groups_are_numbered_together(feed: GroupFeed) -> None:
    numbers = [feed.acquire("a", group=group).lease for group in ("g", "h", "i")]
    assert numbers == sorted(set(numbers))


def test_a_clock_that_was_ahead_for_a_while_makes_no_lease_last(feed: GroupFeed) -> None:
    feed.now += 3_600_000
    feed.append(b"from a leader whose clock is ahead")
    feed.acquire("a", ttl_ms=1000)
    feed.now -= 3_600_000
    assert isinstance(feed.acquire("b"), LeaseLost)
    feed.now += 1000
    assert feed.acquire("b").member == "b"


def test_a_group_is_deleted_when_nobody_holds_it(feed: GroupFeed) -> None:
    feed.commit(4)
    feed.commit(0, stream="t")
    feed.acquire("a")
    assert isinstance(feed(DeleteGroup("g", feed.now)), LeaseLost)
    feed.now += 1000
    assert feed(DeleteGroup("g", feed.now)) is None
    assert isinstance(feed(DeleteGroup("g", feed.now)), UnknownGroup)
    assert feed.committed() is None


def test_there_is_a_bound_that_expired_leases_make_room_in(
    feed: GroupFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "POSITIONS_MAX", 3)
    feed.commit(1)
    feed.acquire("a", group="h")
    feed.acquire("a", group="i")
    assert isinstance(feed.commit(1, group="j"), Throttled)
    assert isinstance(feed.acquire("a", group="j"), Throttled)
    assert feed.commit(2).offset == 2
    feed.now += 1000
    assert feed.commit(1, group="j").offset == 1
    assert feed.machine.groups.names() == ["g", "j"]
    assert feed.machine.groups.find("h", "s") is None


def test_a_deleted_group_makes_room_for_as_many_streams_as_it_had(
    feed: GroupFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "POSITIONS_MAX", 2)
    feed.commit(1)
    feed.commit(0, stream="t")
    assert isinstance(feed.commit(1, group="h"), Throttled)
    feed(DeleteGroup("g", feed.now))
    assert feed.commit(1, group="h").offset == 1
    assert feed.commit(0, group="h", stream="t").offset == 0
    assert isinstance(feed.commit(1), Throttled)


def test_a_copy_by_snapshot_decides_alike(feed: GroupFeed) -> None:
    feed.commit(4)
    lease = feed.acquire("a", ttl_ms=1000).lease
    feed.acquire("b", group="h")
    other = feed.copy()
    for each in (feed, other):
        each.now += 500
        assert isinstance(each.commit(5), LeaseLost)
        assert each.commit(5, lease).lag == 5
        assert isinstance(each.acquire("c"), LeaseLost)
        each.now += 500
        assert each.acquire("c").lease == 3
    assert saved(feed.machine) == saved(other.machine)
