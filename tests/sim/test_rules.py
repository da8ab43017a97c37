"""Rules that chance tests too rarely: one core, its real log on a simulated disk, messages by hand.

Each rule is tested twice: it holds, and the test fails if the rule is broken on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from random import Random
from typing import Any

import msgspec
import pytest

from cute_logger.replication import gate as gate_module
from cute_logger.replication.barrier import ReadBarrier
from cute_logger.replication.config import Timing
from cute_logger.replication.gate import Gate
from cute_logger.replication.introductions import why_refused
from cute_logger.replication.journal import RaftJournal
from cute_logger.replication.members import Config, Member, Members, added
from cute_logger.replication.messages import (
    PROTOCOL,
    Alive,
    AppendEntries,
    AppendReply,
    CommitNotice,
    Hello,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Vote,
    VoteRequest,
)
from cute_logger.replication.raft import RaftCore
from cute_logger.replication.sim.clock import NodeClock
from cute_logger.replication.sim.disk import SimDisk
from cute_logger.replication.sim.patching import patched
from cute_logger.replication.upstream import COMMAND, now
from cute_logger.storage.wal import Entry, Wal

PEERS = ["n1", "n2", "n3", "n4"]
NOBODY = Config(())
FAR_S = 5.0
"""Beyond every election timeout."""
SOON_S = 0.35
"""Before any election timeout, and after the wait of those who are all there."""


class Nobody:
    """Waits for an entry and does not care."""

    def applied(self, result: Any) -> None: ...
    def replaced(self) -> None: ...
    def unknown(self) -> None: ...


class Applied:
    """A `raft.Machine` that remembers what it was given."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.indexes: list[int] = []

    def ready(self) -> bool:
        return True

    def settle(self, index: int, config: Config) -> None: ...

    def apply(self, index: int, term: int, command: memoryview | None) -> None:
        self.applied_index = index
        self.indexes.append(index)


class Lone:
    """The core of node n0 in a cluster of five, whose other nodes are the test."""

    journal: RaftJournal
    gate: Gate
    machine: Applied
    core: RaftCore

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, Message]] = []
        self.disk = SimDisk(Random(1))
        self._clock = NodeClock(10.0, 1.0)

    def monotonic(self) -> float:
        return self._clock.read(self.now)

    def restart(self, members: Members | None = None, links: Sequence[str] = PEERS) -> None:
        self.disk.is_usable = True
        self.journal = RaftJournal(Wal.open("/wal", files=self.disk))
        self.gate = Gate(self.journal, lambda peer, message: self.sent.append((peer, message)))
        self.machine = Applied()
        everybody = Config.of(Member(name, name, 0, incarnation="") for name in ["n0", *PEERS])
        if members is None:
            members = Members("n0", "", NOBODY)
            members.add(0, everybody)
        self.core = RaftCore(
            members,
            timing=Timing(),
            journal=self.journal,
            gate=self.gate,
            machine=self.machine,
        )
        for peer in links:
            self.core.introduced(peer, "")
            self.core.connected(peer)

    def lose_power(self) -> None:
        self.disk = self.disk.synced_only(without="")
        self.restart()

    def flush(self) -> None:
        """An fsync, with what the engine does after it."""
        flush = self.journal.wal.begin_flush()
        if flush is not None:
            flush.run()
            self.journal.wal.end_flush(flush)
            self.core.on_durable()
            self.gate.release()
            self.core.doTick(0.0)

    def take(self, kind: type[Message]) -> list[tuple[str, Any]]:
        """What was sent of a kind since the last time."""
        found = [(peer, message) for peer, message in self.sent if isinstance(message, kind)]
        self.sent.clear()
        return found

    def tell(self, peer: str, message: Message) -> None:
        """A message arrives, and the turn after it."""
        self.core.receive(peer, message)
        self.core.doTick(0.0)

    def follow(self, term: int, *terms: int, leader: str = "n1", commit: int = 0) -> None:
        """A leader sends entries with these terms, as the whole log."""
        entries = [Entry(COMMAND + b"%d" % each, at + 1, each) for at, each in enumerate(terms)]
        self.tell(leader, AppendEntries(term, 1, commit, 0, 0, entries))
        self.flush()

    def campaign(self) -> VoteRequest:
        """The election timer runs out, and two others have nothing against it."""
        self.now += FAR_S
        self.core.doTick(0.0)
        (_, asked), *_ = self.take(PreVoteRequest)
        for peer in ("n1", "n2"):
            self.tell(peer, PreVoteReply(asked.term, asked.round, granted=True))
        self.now += FAR_S
        self.core.doTick(0.0)
        self.flush()
        (_, request), *_ = self.take(VoteRequest)
        assert isinstance(request, VoteRequest)
        return request

    def lead(self) -> int:
        """Win an election; returns its term."""
        term = self.campaign().term
        for peer in ("n1", "n2"):
            self.tell(peer, Vote(term))
        assert self.core.is_leader()
        return term


@pytest.fixture
def lone() -> Iterator[Lone]:
    lone = Lone()
    with patched(lone.monotonic, seed=1):
        lone.restart()
        yield lone


Rule = Callable[[Lone], bool]
Break = Callable[[pytest.MonkeyPatch], None]


def a_vote_survives_a_power_loss(lone: Lone) -> bool:
    lone.tell("n1", VoteRequest(5, 0, 0, transfer=False, voter=""))
    lone.flush()
    assert lone.take(Vote) == [("n1", Vote(5))]
    lone.lose_power()
    lone.tell("n2", VoteRequest(5, 0, 0, transfer=False, voter=""))
    lone.flush()
    return not lone.take(Vote)


def a_vote_waits_for_its_fsync(lone: Lone) -> bool:
    lone.tell("n1", VoteRequest(5, 0, 0, transfer=False, voter=""))
    return not lone.take(Vote)


def a_vote_request_waits_for_its_fsync(lone: Lone) -> bool:
    """The candidate's own vote is in it: after a power loss it might vote for somebody else."""
    lone.now += FAR_S
    lone.core.doTick(0.0)
    (_, asked), *_ = lone.take(PreVoteRequest)
    for peer in ("n1", "n2"):
        lone.tell(peer, PreVoteReply(asked.term, asked.round, granted=True))
    lone.now += FAR_S
    lone.core.doTick(0.0)
    assert lone.core.state_name() == "candidate"
    return not lone.take(VoteRequest)


def a_gathered_majority_does_not_wait_for_the_timer(lone: Lone) -> bool:
    lone.restart(links=PEERS[:2])
    lone.now += SOON_S
    lone.core.doTick(0.0)
    return bool(lone.take(PreVoteRequest))


def a_minority_waits_for_the_timer(lone: Lone) -> bool:
    lone.restart(links=PEERS[:1])
    lone.now += SOON_S
    lone.core.doTick(0.0)
    return not lone.take(PreVoteRequest)


def who_has_a_leader_does_not_hurry(lone: Lone) -> bool:
    lone.follow(5, leader="n1")
    lone.core.introduced("n2", "")
    lone.core.connected("n2")
    lone.now += SOON_S
    lone.core.doTick(0.0)
    return not lone.take(PreVoteRequest)


def a_cluster_is_not_founded_early_without_a_member(lone: Lone) -> bool:
    founders = Config.of(Member(name, name, 0) for name in ["n0", *PEERS])
    lone.restart(Members("n0", "", founders), links=PEERS[1:])
    lone.now += SOON_S
    lone.core.doTick(0.0)
    early = lone.take(PreVoteRequest)
    lone.now += FAR_S
    lone.core.doTick(0.0)
    assert lone.take(PreVoteRequest)
    return not early


def a_voter_counts_once(lone: Lone) -> bool:
    term = lone.campaign().term
    lone.tell("n1", Vote(term))
    lone.tell("n1", Vote(term))
    return not lone.core.is_leader()


def a_vote_of_another_term_does_not_count(lone: Lone) -> bool:
    term = lone.campaign().term
    lone.tell("n1", Vote(term))
    lone.tell("n2", Vote(term - 1))
    return not lone.core.is_leader()


def nobody_votes_for_a_shorter_log(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    lone.now += FAR_S
    lone.take(Vote)
    lone.tell("n2", VoteRequest(7, 1, 1, transfer=False, voter=""))
    lone.flush()
    return not lone.take(Vote)


def an_acknowledgement_of_an_earlier_term_does_not_count(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    term = lone.lead()
    lone.flush()
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term - 1, 1, 4, success=True))
    return lone.core.commit_index() == 0


def entries_of_earlier_terms_are_not_counted(lone: Lone) -> bool:
    """Figure 8 of the Raft paper: on a majority, and yet another leader may overwrite them."""
    lone.follow(1, 1, 1)
    term = lone.lead()
    lone.flush()
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, 1, 3, success=True))
    early = lone.core.commit_index()
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, 1, 4, success=True))
    assert lone.core.commit_index() == 3
    return early == 0


def the_leader_counts_after_its_own_fsync(lone: Lone) -> bool:
    term = lone.lead()
    lone.flush()
    index = lone.core.propose(b"x", Nobody())
    assert index is not None
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, 1, index + 1, success=True))
    return lone.core.commit_index() < index


def a_late_message_does_not_truncate(lone: Lone) -> bool:
    lone.follow(1, 1, 1, 1)
    lone.follow(1, 1, 1)
    return lone.journal.last_index == 3


def a_committed_entry_is_never_overwritten(lone: Lone) -> bool:
    lone.follow(1, 1, 1, commit=2)
    lone.tell("n1", AppendEntries(1, 2, 2, 2, 1, []))
    with pytest.raises(BaseException, match="overwrite committed"):
        lone.tell("n2", AppendEntries(2, 1, 2, 0, 0, [Entry(COMMAND + b"other", 1, 2)]))
    return lone.journal.term_at(1) == 1


def a_longer_log_is_not_committed_unseen(lone: Lone) -> bool:
    """The tail was another leader's: this one vouches for the first entry only."""
    lone.follow(1, 1, 1, 1)
    lone.tell("n2", AppendEntries(2, 1, 3, 0, 0, [Entry(COMMAND + b"1", 1, 1)]))
    return lone.core.commit_index() == 1


def a_notice_commits_what_is_the_leaders_own(lone: Lone) -> bool:
    """The new leader's commit index lies in a tail of the old one's: it is not the same entry."""
    lone.follow(1, 1, 1, 1)
    lone.tell("n2", AppendEntries(2, 1, 0, 0, 0, [Entry(COMMAND + b"1", 1, 1)]))
    lone.tell("n2", CommitNotice(2, 3, 2))
    assert lone.core.commit_index() < 3, "another entry is committed"
    lone.tell("n2", CommitNotice(2, 1, 1))
    return lone.core.commit_index() == 1 and lone.machine.indexes == [1]


def a_notice_of_an_earlier_leader_does_not_count(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    lone.tell("n2", AppendEntries(2, 1, 0, 0, 0, []))
    lone.tell("n1", CommitNotice(1, 2, 1))
    return lone.core.commit_index() == 0


def the_leader_gives_notice_of_what_it_committed(lone: Lone) -> bool:
    """With nothing else to send, well before the next heartbeat; nobody is asked to answer."""
    term = lone.lead()
    lone.flush()
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, 1, lone.journal.last_index + 1, success=True))
    assert lone.core.commit_index() == lone.journal.last_index
    lone.now += 0.01
    lone.core.doTick(0.0)
    told = lone.take(CommitNotice)
    notice = CommitNotice(term, lone.journal.last_index, term)
    return sorted(told, key=itemgetter(0)) == [(peer, notice) for peer in PEERS]


def what_was_acknowledged_is_not_called_lost(lone: Lone) -> bool:
    """A message was lost, and the next one meets the tail of another leader's log."""
    lone.follow(2, 1, 1, 2, 2, commit=1)
    lone.tell("n2", AppendEntries(3, 1, 1, 2, 1, []))
    lone.flush()
    assert lone.take(AppendReply)[-1][1].next_index == 3
    lone.tell("n2", AppendEntries(3, 3, 1, 4, 3, [Entry(COMMAND + b"new", 5, 3)]))
    lone.flush()
    ((_, reply),) = lone.take(AppendReply)
    return not reply.success and reply.next_index == 3


def an_old_leader_is_told_of_its_end(lone: Lone) -> bool:
    lone.follow(3, 3)
    lone.take(AppendReply)
    lone.tell("n2", AppendEntries(2, 1, 0, 0, 0, [Entry(COMMAND + b"old", 1, 2)]))
    lone.flush()
    ((peer, reply),) = lone.take(AppendReply)
    return peer == "n2" and reply.term == 3 and not reply.success


def an_index_for_a_read_waits_for_a_majority(lone: Lone) -> bool:
    term = lone.lead()
    lone.flush()
    answers: list[int | None] = []
    lone.core.read_index(answers.append)
    lone.core.doTick(0.0)
    sent = max(message.sequence for _, message in lone.take(AppendEntries))
    lone.tell("n1", AppendReply(term, sent, 2, success=True))
    lone.tell("n1", AppendReply(term, sent, 2, success=True))
    early = list(answers)
    lone.tell("n2", AppendReply(term, sent, 2, success=True))
    assert answers == [1]
    return not early


def an_index_for_a_read_covers_what_earlier_leaders_committed(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    term = lone.lead()
    lone.flush()
    first_of_term = lone.journal.last_index
    answers: list[int | None] = []
    lone.core.read_index(answers.append)
    lone.core.doTick(0.0)
    sent = max(message.sequence for _, message in lone.take(AppendEntries))
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, sent, 1, success=True))
    (index,) = answers
    return index is not None and index >= first_of_term


def a_follower_that_waits_for_its_disk_says_that_it_is_alive(lone: Lone) -> bool:
    entry = Entry(COMMAND, 1, 1)
    lone.tell("n1", AppendEntries(1, 1, 0, 0, 0, [entry]))
    said = {type(message) for _, message in lone.sent}
    lone.flush()
    assert lone.take(AppendReply)
    return AppendReply not in said and Alive in said


def a_leader_whose_followers_wait_for_their_disks_goes_on(lone: Lone) -> bool:
    term = lone.lead()
    lone.flush()
    for _ in range(10):
        lone.now += 0.5 * lone.core.timing.check_quorum_s
        for peer in ("n1", "n2"):
            lone.tell(peer, Alive(term))
    return lone.core.is_leader()


def a_cold_read_from_before_a_truncation_is_not_used(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    before = lone.journal.wal.load(1, 1 << 20)()
    generation = lone.journal.generation
    lone.follow(2, 2, 2, leader="n2")
    lone.journal.wal._cache.evict(0, 3)
    assert lone.journal.read(1, 1 << 20) is None
    lone.journal.supply(1, before, generation)
    return lone.journal.read(1, 1 << 20) is None


def an_answer_to_an_earlier_process_is_not_taken(lone: Lone) -> bool:
    """The leader may have answered before entries were acknowledged that this process must see."""
    lone.follow(1, 1)
    ReadBarrier(lone.core, lone.gate, "00a1b2c3d4e5").ask(lambda index: None)
    ((_, asked),) = lone.take(ReadIndexRequest)
    lone.restart()
    lone.follow(1, 1)
    answers: list[int | None] = []
    barrier = ReadBarrier(lone.core, lone.gate, "f0a1b2c3d4e5")
    barrier.ask(answers.append)
    barrier.on_reply(ReadIndexReply(asked.request, 1))
    return not answers


def an_entry_in_the_place_of_a_durable_one_is_not_durable(lone: Lone) -> bool:
    lone.follow(1, 1, 1)
    lone.tell("n2", AppendEntries(2, 1, 1, 0, 0, [Entry(COMMAND + b"other", 1, 2)]))
    early = list(lone.machine.indexes)
    lone.flush()
    assert lone.machine.indexes == [1]
    return not early


def a_learner_becomes_a_voter_once_it_has_caught_up(lone: Lone) -> bool:
    term = lone.lead()

    def commit() -> None:
        for _ in range(3):
            lone.flush()
            for peer in ("n1", "n2"):
                lone.tell(peer, AppendReply(term, 1, lone.journal.last_index + 1, success=True))

    commit()
    newest = lone.core.members.newest
    lone.core.introduced("n5", "its disk")
    lone.core.change_members(added(newest, "n5", ("n5", 0), as_voter=True))
    commit()
    early = lone.core.members.newest.voters()
    lone.tell("n5", AppendReply(term, 1, lone.journal.last_index + 1, success=True))
    commit()
    assert lone.core.members.newest.voters()["n5"] == "its disk"
    return "n5" not in early


def another_disk_under_a_voters_id_does_not_count(lone: Lone) -> bool:
    term = lone.lead()
    lone.flush()
    lone.core.introduced("n1", "another disk")
    for peer in ("n1", "n2"):
        lone.tell(peer, AppendReply(term, 1, 2, success=True))
    early = lone.core.commit_index()
    lone.tell("n3", AppendReply(term, 1, 2, success=True))
    assert lone.core.commit_index() == 1
    return early == 0


def a_leader_is_heard_that_only_an_uncommitted_list_leaves_out(lone: Lone) -> bool:
    """It would truncate that list, and cannot if it is turned away."""
    members = lone.core.members
    members.add(7, members.newest.without("n1"))
    hello = Hello(PROTOCOL, "n1", None, None, "", ("n1", 0), 0, "n0")
    return why_refused(hello, members, None) is None


def _unchecked_reply(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append_reply

    def on_append_reply(self: RaftCore, node: Any, reply: AppendReply) -> None:
        original(self, node, msgspec.structs.replace(reply, term=self._term))

    patch.setitem(RaftCore._HANDLERS, AppendReply, on_append_reply)


def _unchecked_vote(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_vote

    def on_vote(self: RaftCore, node: Any, vote: Vote) -> None:
        original(self, node, Vote(self._term))

    patch.setitem(RaftCore._HANDLERS, Vote, on_vote)


def _timer_not_shortened(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "_expect_leader", lambda self: None)


def _anybody_is_enough(patch: pytest.MonkeyPatch) -> None:
    def expect_leader(self: RaftCore) -> None:
        self._deadline = min(self._deadline, now() + self._head_start())

    patch.setattr(RaftCore, "_expect_leader", expect_leader)


def _votes_counted_twice(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_vote

    def on_vote(self: RaftCore, node: Any, vote: Vote) -> None:
        self._voters.clear()
        original(self, node, vote)

    patch.setitem(RaftCore._HANDLERS, Vote, on_vote)


def _vote_forgotten(patch: pytest.MonkeyPatch) -> None:
    def set_current_term(self: RaftJournal, term: int, vote: str | None) -> None:
        self.wal.set_hard_state(term, None)

    patch.setattr(RaftJournal, "setCurrentTerm", set_current_term)


def _any_term_commits(patch: pytest.MonkeyPatch) -> None:
    def get_entries(self: RaftCore, index: int, count: int) -> list[tuple[bytes, int, int]]:
        return [(b"", index, self._term)]

    patch.setattr(RaftCore, "_SyncObj__getEntries", get_entries)


def _leader_counts_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "durable_index", property(lambda self: self.wal.last_index))


def _always_truncates(patch: pytest.MonkeyPatch) -> None:
    def append_new(self: RaftCore, node: object, entries: list[Entry]) -> None:
        if entries:
            if entries[0].index <= self.journal.last_index:
                self.journal.truncate(entries[0].index)
            self.journal.extend(entries)

    patch.setattr(RaftCore, "_append_new", append_new)


def _commits_unseen(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append

    def on_append(self: RaftCore, node: Any, message: AppendEntries) -> None:
        original(self, node, message)
        self._commit = max(self._commit, min(message.commit_index, self.journal.last_index))

    patch.setitem(RaftCore._HANDLERS, AppendEntries, on_append)


def _notices_believed(patch: pytest.MonkeyPatch) -> None:
    def on_commit_notice(self: RaftCore, node: Any, notice: CommitNotice) -> bool:
        self._commit = max(self._commit, min(notice.commit_index, self.journal.last_index))
        return True

    patch.setitem(RaftCore._HANDLERS, CommitNotice, on_commit_notice)


def _no_notice_given(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "_tell_commit", lambda self: None)


def _log_not_compared(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_vote_request

    def on_vote_request(self: RaftCore, node: Any, request: VoteRequest) -> None:
        last = self.journal
        request = msgspec.structs.replace(
            request, last_index=last.last_index, last_term=last.last_term
        )
        original(self, node, request)

    patch.setitem(RaftCore._HANDLERS, VoteRequest, on_vote_request)


def _no_answer_to_old_leaders(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append

    def on_append(self: RaftCore, node: Any, message: AppendEntries) -> None:
        if message.term >= self._term:
            original(self, node, message)

    patch.setitem(RaftCore._HANDLERS, AppendEntries, on_append)


def _truncation_unnoticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "truncate", lambda self, index: self.wal.truncate(index))


def _questions_counted_from_one(patch: pytest.MonkeyPatch) -> None:
    original = ReadBarrier.__init__

    def init(self: ReadBarrier, core: RaftCore, gate: Gate, token: str) -> None:
        original(self, core, gate, "0")

    patch.setattr(ReadBarrier, "__init__", init)


def _durable_index_stays(patch: pytest.MonkeyPatch) -> None:
    def end_at(self: Wal, index: int) -> None:
        self.last_index = index

    patch.setattr(Wal, "_end_at", end_at)


def _one_node_is_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "_quorum", lambda self, count: count >= 2)


def _only_what_is_known_to_be_committed(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore.read_index

    def read_index(self: RaftCore, answer: Callable[[int | None], None]) -> None:
        noop, self._noop_index = self._noop_index, 0
        original(self, answer)
        self._noop_index = noop

    patch.setattr(RaftCore, "read_index", read_index)


def _only_commits_are_known(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "_agreed_index", RaftCore.commit_index)


def _nobody_says_so(patch: pytest.MonkeyPatch) -> None:
    original = Gate.post

    def post(self: Gate, peer: str, message: Message) -> bool:
        return isinstance(message, Alive) or original(self, peer, message)

    patch.setattr(Gate, "post", post)


def _nobody_listens(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(RaftCore._HANDLERS, Alive)


def _any_disk_is_seated(patch: pytest.MonkeyPatch) -> None:
    def seat(self: RaftCore) -> None:
        self._seated = set(self._others)

    patch.setattr(RaftCore, "_seat", seat)
    patch.setattr(RaftCore, "introduced", lambda self, peer, incarnation: None)


def _only_the_newest_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "may_be", lambda self, node: self.newest.get(node) is not None)


def _learners_are_always_ready(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "_is_caught_up", lambda self, peer: True)


def _only(*promises: type[Message]) -> Break:
    return lambda patch: patch.setattr(gate_module, "PROMISES", promises)


RULES: list[tuple[Rule, Break]] = [
    (a_vote_survives_a_power_loss, _vote_forgotten),
    (a_vote_waits_for_its_fsync, _only(AppendReply, VoteRequest)),
    (a_vote_request_waits_for_its_fsync, _only(AppendReply, Vote)),
    (a_gathered_majority_does_not_wait_for_the_timer, _timer_not_shortened),
    (a_minority_waits_for_the_timer, _anybody_is_enough),
    (who_has_a_leader_does_not_hurry, _anybody_is_enough),
    (a_cluster_is_not_founded_early_without_a_member, _anybody_is_enough),
    (a_voter_counts_once, _votes_counted_twice),
    (a_vote_of_another_term_does_not_count, _unchecked_vote),
    (nobody_votes_for_a_shorter_log, _log_not_compared),
    (an_acknowledgement_of_an_earlier_term_does_not_count, _unchecked_reply),
    (entries_of_earlier_terms_are_not_counted, _any_term_commits),
    (the_leader_counts_after_its_own_fsync, _leader_counts_at_once),
    (a_late_message_does_not_truncate, _always_truncates),
    (a_committed_entry_is_never_overwritten, _always_truncates),
    (a_longer_log_is_not_committed_unseen, _commits_unseen),
    (a_notice_commits_what_is_the_leaders_own, _notices_believed),
    (a_notice_of_an_earlier_leader_does_not_count, _notices_believed),
    (the_leader_gives_notice_of_what_it_committed, _no_notice_given),
    (what_was_acknowledged_is_not_called_lost, _only_commits_are_known),
    (an_old_leader_is_told_of_its_end, _no_answer_to_old_leaders),
    (an_index_for_a_read_waits_for_a_majority, _one_node_is_a_majority),
    (
        an_index_for_a_read_covers_what_earlier_leaders_committed,
        _only_what_is_known_to_be_committed,
    ),
    (an_entry_in_the_place_of_a_durable_one_is_not_durable, _durable_index_stays),
    (an_answer_to_an_earlier_process_is_not_taken, _questions_counted_from_one),
    (a_cold_read_from_before_a_truncation_is_not_used, _truncation_unnoticed),
    (a_follower_that_waits_for_its_disk_says_that_it_is_alive, _nobody_says_so),
    (a_leader_whose_followers_wait_for_their_disks_goes_on, _nobody_listens),
    (another_disk_under_a_voters_id_does_not_count, _any_disk_is_seated),
    (a_leader_is_heard_that_only_an_uncommitted_list_leaves_out, _only_the_newest_list),
    (a_learner_becomes_a_voter_once_it_has_caught_up, _learners_are_always_ready),
]
NAMES = [rule.__name__ for rule, _ in RULES]


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=NAMES)
def test_holds(rule: Rule, lone: Lone) -> None:
    assert rule(lone)


@pytest.mark.parametrize(("rule", "break_it"), RULES, ids=NAMES)
def test_is_noticed_when_broken(
    rule: Rule, break_it: Break, lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    try:
        kept = rule(lone)
    except (AssertionError, ValueError, pytest.fail.Exception):
        kept = False
    assert not kept
