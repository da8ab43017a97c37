"""Who leads: pysyncobj's election skeleton, made safe and calm.

Stock code runs the election timer, grants and counts votes, keeps term and vote, sends a leader
without a majority back to follower. Added here, at the places where it asks or is told:

- pre-vote: nobody raises the term without a majority that would vote for it (Ongaro's thesis, 9.6);
- stickiness: no vote against a leader that was heard from lately;
- a voter counts once, and only if it is a member with the disk that the log names (`members.py`);
- a broken connection to the leader shortens the wait, since a killed process closes its sockets;
- so does a majority that comes together without a leader, as after a power failure.

Term and vote go through the journal, and every vote through the gate: neither shows before it is
durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from .config import Timing
from .gate import Gate
from .journal import RaftJournal
from .members import Members
from .messages import PreVoteReply, PreVoteRequest, TimeoutNow, Vote, VoteRequest
from .upstream import CANDIDATE, FOLLOWER, LEADER, Stock, now

logger = logging.getLogger(__name__)


RANKS = 4
"""Turns between the shortest election timeout and the longest."""
RANK_JITTER = 0.8
"""Share of a turn within which its holder begins."""
HEAD_START_S = 0.01

_NOBODY = ""
"""No folder's incarnation: the vote of a seat that nobody fills."""


class Fatal(BaseException):
    """The node must stop: going on could break a promise already made."""


@dataclass(slots=True)
class PreVote:
    """One round of asking whether an election could be won."""

    term: int
    round: int
    until: float
    granted: set[str]


class Elections(SyncObj):  # type: ignore[misc]
    """The part of a Raft node that decides who leads."""

    _term = Stock[int]("raftCurrentTerm")
    _voted_for = Stock["str | None"]("votedForNodeId")
    _state = Stock[int]("raftState")
    _leader = Stock["Node | None"]("raftLeader")
    _deadline = Stock[float]("raftElectionDeadline")
    _commit = Stock[int]("raftCommitIndex")
    _leader_commit = Stock[int]("leaderCommitIndex")
    _applied = Stock[int]("raftLastApplied")
    _next = Stock["dict[Node, int]"]("raftNextIndex")
    _match = Stock["dict[Node, int]"]("raftMatchIndex")
    _responded = Stock["dict[Node, float]"]("lastResponseTime")
    _others = Stock["set[Node]"]("otherNodes")
    _connected = Stock["set[Node]"]("connectedNodes")
    _transfer_pending = Stock[bool]("transferInProgress")
    _noop_index = Stock["int | None"]("noopIDx")
    _stock_log = Stock[RaftJournal]("raftLog")
    _next_heartbeat = Stock[float]("newAppendEntriesTime")
    _need_dump = Stock[bool]("needLoadDumpFile")

    def __init__(
        self,
        members: Members,
        *,
        timing: Timing,
        journal: RaftJournal,
        gate: Gate,
        applied_index: int,
    ) -> None:
        self.node_id = members.node_id
        self.members = members
        self.journal = journal
        self.gate = gate
        self.timing = timing
        self.nodes: dict[str, Node] = {}
        self._learners: set[Node] = set()
        self._seated: set[Node] = set()
        """The other voters that are what the config says they are: they vote and count."""
        self._incarnations: dict[str, str] = {}
        """What the others said they are."""
        self._sequence = 0
        self._heard = float("-inf")
        self._voters: set[str] = set()
        self._pre_vote: PreVote | None = None
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=timing.append_period_s,
            raftMinTimeout=timing.election_timeout_s_min,
            raftMaxTimeout=timing.election_timeout_s_max,
            leaderFallbackTimeout=timing.check_quorum_s,
            connectionTimeout=max(3.5, timing.election_timeout_s_max),
        )
        super().__init__(Node(self.node_id), [], conf, transport=gate)
        self._poller = _NoSockets()
        self._need_dump = False
        self._stock_log = journal
        self._term, self._voted_for = journal.getCurrentTerm(), journal.getVotedForNodeId()
        self._applied = self._commit = applied_index
        gate.voter_of = self._voter_asked
        self._adopt()
        if not self._others:
            self._deadline = now()
        if self._applied < journal.base_index:
            raise Fatal(f"applied up to {self._applied}, the log begins after {journal.base_index}")

    # ---- what is known of the others

    def is_leader(self) -> bool:
        return self._state == LEADER

    def state_name(self) -> str:
        names = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader"}
        return names[self._state]

    def leader_id(self) -> str | None:
        return self._leader.id if self._leader is not None else None

    def term(self) -> int:
        return self._term

    def silence_s(self) -> float:
        """Seconds since the leader was last heard; 0 on the leader."""
        return 0.0 if self.is_leader() else now() - self._heard

    def last_seen_s(self, peer: str) -> float | None:
        """Seconds since `peer` answered this leader, or led this follower; None if unknown."""
        node = self._node(peer)
        if self.is_leader():
            return now() - self._responded[node] if node in self._responded else None
        return now() - self._heard if node == self._leader else None

    def is_connected(self, peer: str) -> bool:
        return self._node(peer) in self._connected

    def connected_members(self) -> list[str]:
        """The other members that can be asked now, the leader first."""
        others = [member.id for member in self.members.newest.members]
        others.sort(key=lambda node: node != self.leader_id())
        return [each for each in others if each != self.members.node_id and self.is_connected(each)]

    def _node(self, peer: str) -> Node:
        node = self.nodes.get(peer)
        if node is None:
            node = self.nodes[peer] = Node(peer)
        return node

    # ---- members

    def _adopt(self) -> None:
        """The newest config in the log has changed: it rules from now on."""
        others = [member for member in self.members.newest.members if member.id != self.node_id]
        self._others = {self._node(member.id) for member in others if member.is_voter}
        self._learners = {self._node(member.id) for member in others if not member.is_voter}
        self._seat()

    def _seat(self) -> None:
        voters, heard = self.members.newest.voters(), self._incarnations
        self._seated = {node for node in self._others if voters[node.id] == heard.get(node.id)}

    def introduced(self, peer: str, incarnation: str) -> None:
        """`peer` has opened a connection and said which disk it has."""
        self._incarnations[peer] = incarnation
        self._seat()
        self._expect_leader()

    def _voter_asked(self, peer: str) -> str | None:
        """The incarnation that has the vote of `peer`, by this node's log."""
        if not self.members.is_known:
            return None
        return self.members.newest.voters().get(peer) or _NOBODY

    # ---- connections

    def connected(self, peer: str) -> None:
        """A connection to `peer` is open."""
        self.gate._onNodeConnected(self._node(peer))
        self._expect_leader()

    def disconnected(self, peer: str) -> None:
        """The connection to `peer` broke. If it led, its process is most likely gone: do not wait
        for the timer.
        """
        node = self._node(peer)
        self.gate.forget(peer)
        self.gate._onNodeDisconnected(node)
        if node == self._leader and self._state == FOLLOWER:
            self._deadline = min(self._deadline, now() + self._head_start())
            self._leader, self._heard = None, float("-inf")

    def _expect_leader(self) -> None:
        """Called while connections are made, as after a power failure. A leader speaks at once when
        it is connected: do not wait for the timer when a majority is here and nobody leads, nor for
        answers of those who were not here yet. A cluster is founded early by all or not at all:
        whoever is missing has no seat in the first config.
        """
        here = {node for node in self._others & self._connected if node.id in self._incarnations}
        gathered = self._quorum(1 + len(here)) if self.members.is_known else here == self._others
        if gathered and self._leader is None and self._state == FOLLOWER:
            self._pre_vote = None
            self._deadline = min(self._deadline, now() + self._head_start())

    def still_receiving(self, peer: str) -> bool:
        """Part of a message of `peer` arrived: as good as a heartbeat if it leads. False: no tick
        is due for it.
        """
        if self._state == FOLLOWER and self._leader == self._node(peer):
            self._deadline = max(self._deadline, now() + self.timing.election_timeout_s_min)
        return False

    # ---- votes

    def _election_timeout(self) -> float:
        return float(self._SyncObj__generateRaftTimeout())

    def _head_start(self) -> float:
        """How long to wait for others when no timer has to show that the leader is gone."""
        return HEAD_START_S + (self._election_timeout() - self.timing.election_timeout_s_min) / 2

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        """One after the other: who has the lowest id asks first, so that votes do not split, and
        the wait is not longer than needed. The next one's turn comes if that one cannot win.
        """
        shortest, longest = self.timing.election_timeout_s_min, self.timing.election_timeout_s_max
        dice = (super()._SyncObj__generateRaftTimeout() - shortest) / (longest - shortest)
        share = (self._rank() + RANK_JITTER * dice) / RANKS
        return float(shortest + (longest - shortest) * min(1.0, share))

    def _rank(self) -> int:
        """How many of the voters that may follow the leader come first."""
        leader = self.leader_id()
        return sum(
            voter < self.node_id for voter in self.members.newest.voters() if voter != leader
        )

    def _quorum(self, count: int) -> bool:
        return count > (len(self._others) + 1) / 2

    def _leader_is_fresh(self) -> bool:
        """True while a vote for somebody else would only disturb a working leader."""
        horizon = now() - self.timing.election_timeout_s_min
        if self.is_leader():
            fresh = sum(self._responded[node] > horizon for node in self._others)
            return self._quorum(fresh + 1)
        return self._leader is not None and self._heard > horizon

    def _on_vote_request(self, node: Node, request: VoteRequest) -> None:
        if not self.members.may_vote(request.voter):
            return
        if request.transfer or not self._leader_is_fresh():
            message = {
                "type": "request_vote",
                "term": request.term,
                "last_log_index": request.last_index,
                "last_log_term": request.last_term,
            }
            self._SyncObj__onMessageReceived(node, message)

    def _on_vote(self, node: Node, vote: Vote) -> None:
        wanted = self._state == CANDIDATE and vote.term == self._term
        if wanted and node in self._others and node.id not in self._voters:
            self._voters.add(node.id)
            self._SyncObj__onMessageReceived(node, {"type": "response_vote", "term": vote.term})

    def _on_timeout_now(self, node: Node, message: TimeoutNow) -> None:
        if message.term == self._term and node == self._leader:
            self.gate.transfer_term = self._term + 1
            self._SyncObj__onMessageReceived(node, {"type": "timeout_now", "term": message.term})

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """Stock code asks this just before it starts an election: the place for the pre-vote."""
        if not self.members.is_voter:
            return False
        if not self._others or self.gate.transfer_term == self._term + 1:
            return self._may_campaign()
        asked = self._pre_vote
        if asked is not None and asked.term == self._term + 1:
            if self._quorum(len(asked.granted)):
                return self._may_campaign()
            if now() < asked.until:
                return False
        self._sequence += 1
        until = now() + self._election_timeout()
        self._pre_vote = PreVote(self._term + 1, self._sequence, until, {self.node_id})
        self._leader = None
        at = self.journal
        for peer in sorted(node.id for node in self._others):
            voter = self._voter_asked(peer)
            question = (self._term, self._sequence, at.last_index, at.last_term, voter)
            self.gate.post(peer, PreVoteRequest(*question))
        return False

    def _may_campaign(self) -> bool:
        self._pre_vote = None
        self._voters.clear()
        return True

    def _on_pre_vote_request(self, node: Node, request: PreVoteRequest) -> None:
        theirs = (request.last_term, request.last_index)
        ours = (self.journal.last_term, self.journal.last_index)
        granted = request.term >= self._term and theirs >= ours and not self._leader_is_fresh()
        granted = granted and self.members.may_vote(request.voter)
        self.gate.post(node.id, PreVoteReply(self._term, request.round, granted))

    def _on_pre_vote_reply(self, node: Node, reply: PreVoteReply) -> None:
        if reply.term > self._term:
            self._step_down(reply.term)
            return
        asked = self._pre_vote
        if reply.granted and asked and asked.round == reply.round and node in self._others:
            asked.granted.add(node.id)

    def _step_down(self, term: int) -> None:
        """Somebody is in a later term."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._leader = None

    def _SyncObj__setState(self, state: int) -> None:  # noqa: N802
        was_leader = self.is_leader() and state != LEADER
        super()._SyncObj__setState(state)
        if was_leader:
            logger.warning("lost leadership", extra={"term": self._term})
            self._deadline = now() + self._election_timeout()
            self._leadership_lost()

    def _leadership_lost(self) -> None:
        """Nobody may be answered as if this node still led."""
        raise NotImplementedError

    # ---- stock paths that must not run

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """There is no command queue: `propose` appends at once."""

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """The checkpoint decides what the log may forget."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        raise Fatal("pysyncobj's snapshots must not be loaded")

    _HANDLERS: dict[type, Callable[..., bool | None]] = {  # noqa: RUF012
        VoteRequest: _on_vote_request,
        Vote: _on_vote,
        PreVoteRequest: _on_pre_vote_request,
        PreVoteReply: _on_pre_vote_reply,
        TimeoutNow: _on_timeout_now,
    }


class _NoSockets:
    """pysyncobj's poller has nothing to watch: the transport has its own sockets."""

    def poll(self, timeout: float) -> None:
        """Return at once."""
