"""Conditions on keys, judged when a command is proposed: by what was applied, what is under way,
and what goes into the same entry.
"""

from __future__ import annotations

from typing import Any

import pytest
import xxhash

from cute_logger.replication.coalescer import Coalescer, Entry, Pending
from cute_logger.replication.commands import AppendBatch, CreateStream, Transact
from cute_logger.replication.errors import ConditionFailed, NoLeader
from cute_logger.replication.guards import Guard, Verdict, Watch
from cute_logger.storage.codec import CODECS, pack
from cute_logger.storage.record import Record, encode_records
from support.applied import Applied


def append(key: bytes, *, stream: str = "s", codec: int = 0) -> AppendBatch:
    body = encode_records([Record(b"v", key=key, headers={"a": "b"})])
    codec, packed = pack(codec, body)
    digest = xxhash.xxh3_128_digest(body)
    return AppendBatch(stream, packed, 1, 2, 0, None, None, None, None, digest, codec)


class Leader:
    """A state machine with a queue before it, and one condition: nobody else writes key `k`."""

    def __init__(self) -> None:
        self.applied = Applied()
        self.applied(CreateStream("s", {}, 0), CreateStream("other", {}, 0))
        self.machine = self.applied.machine
        self.queue = Coalescer(1 << 20)
        self.knows_all = True
        self.is_repeat = False
        self.under_way: list[tuple[bytes, Entry]] = []

    def add(self, command: Any, *, guarded: bool = False, checked_to: int = 0) -> list[Any]:
        outcome: list[Any] = []
        guard = None
        if guarded:
            watch = Watch(self.machine.streams["s"], lambda record: record.key == b"k", checked_to)
            guard = Guard(
                [watch],
                self.machine.recent,
                is_repeat=lambda: self.is_repeat,
                knows_all=lambda: self.knows_all,
            )
        self.queue.add(Pending(command, 100, outcome.append, guard))
        return outcome

    def propose(self) -> int:
        """Take the next entry; how many commands are in it."""
        taken = self.queue.take()
        if taken is None:
            return 0
        self.under_way.append(taken)
        return len(list(taken[1].commands()))

    def apply(self) -> None:
        payload, entry = self.under_way.pop(0)
        index = self.machine.applied_index + 1
        entry.applied(self.machine.apply(index, 1, memoryview(payload)))


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_nothing_in_the_way(leader: Leader) -> None:
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 1
    leader.apply()
    assert outcome[0].first_offset == 0


def test_a_record_applied_since_breaks_it(leader: Leader) -> None:
    for key in (b"x", b"k", b"k"):
        leader.add(append(key))
        leader.propose()
        leader.apply()
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 0
    assert isinstance(outcome[0], ConditionFailed)
    assert outcome[0].facts["actual"] == 1
    outcome = leader.add(append(b"k"), guarded=True, checked_to=3)
    assert leader.propose() == 1


@pytest.mark.parametrize("codec", CODECS.values())
def test_a_record_under_way_makes_it_wait_until_it_is_applied(leader: Leader, codec: int) -> None:
    leader.add(append(b"k", codec=codec))
    leader.propose()
    outcome = leader.add(append(b"k"), guarded=True)
    later = leader.add(append(b"x"))
    assert leader.propose() == 1, "who comes later does not wait with it"
    assert (outcome, leader.propose()) == ([], 0)
    leader.apply()
    assert leader.propose() == 0
    assert outcome[0].facts["actual"] == 0
    leader.apply()
    assert later[0].first_offset == 1


def test_what_was_under_way_and_was_refused_is_not_in_the_way(leader: Leader) -> None:
    refused = append(b"k")
    refused = AppendBatch("s", refused.body, 1, 2, 0, None, 77, None, None, refused.digest)
    leader.add(refused)
    leader.propose()
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 0
    leader.apply()
    assert leader.propose() == 1
    leader.apply()
    assert outcome[0].first_offset == 0


def test_others_keys_and_streams_under_way_are_not_in_the_way(leader: Leader) -> None:
    leader.add(append(b"x"))
    leader.propose()
    leader.add(append(b"k", stream="other"))
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 2
    leader.apply()
    leader.apply()
    assert outcome[0].first_offset == 1


def test_of_two_in_one_turn_one_succeeds(leader: Leader) -> None:
    outcomes = [leader.add(append(b"k"), guarded=True) for _ in range(3)]
    while leader.propose() or leader.under_way:
        leader.apply()
    kinds = [type(outcome).__name__ for (outcome,) in outcomes]
    assert kinds == ["Receipt", "ConditionFailed", "ConditionFailed"]


def test_a_transaction_under_way_counts(leader: Leader) -> None:
    leader.add(Transact([append(b"k")], [], None, b"", 0))
    leader.propose()
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 0
    leader.apply()
    assert leader.propose() == 0
    assert isinstance(outcome[0], ConditionFailed)


def test_an_entry_that_was_refused_is_not_waited_for(leader: Leader) -> None:
    leader.add(append(b"k"))
    leader.propose()
    leader.under_way.pop()[1].refused(NoLeader("no"))
    leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 1


def test_a_leader_that_does_not_know_all_waits(leader: Leader) -> None:
    leader.knows_all = False
    leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 0
    leader.knows_all = True
    assert leader.propose() == 1


def test_a_repeat_goes_to_apply_which_knows_its_receipt(leader: Leader) -> None:
    leader.add(append(b"k"))
    leader.propose()
    leader.apply()
    leader.is_repeat = True
    leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 1


def test_where_memory_has_no_longer_all_somebody_must_look_again(leader: Leader) -> None:
    for _ in range(3):
        leader.add(append(b"x"))
        leader.propose()
        leader.apply()
    stream = leader.machine.streams["s"]
    leader.machine.recent.forget_stream(stream.id)
    outcome = leader.add(append(b"k"), guarded=True)
    assert leader.propose() == 0
    assert outcome == [Verdict.LOOK_AGAIN]


def test_who_waits_no_longer_is_let_go(leader: Leader) -> None:
    leader.add(append(b"k"))
    leader.propose()
    leader.add(append(b"k"), guarded=True)
    leader.propose()
    assert leader.queue
    for pending in leader.queue._waiting:
        pending.abandon()
    assert leader.propose() == 0
    assert not leader.queue
    assert leader.queue.bytes == 0
