"""Raft, with pysyncobj's elections and our own replication.

pysyncobj 0.3.17 loses acknowledged writes in seven ways (DESIGN.md beside this file names them).
`RaftCore` keeps its election skeleton and replaces the rest: appending, acknowledging, applying,
reading. It does no I/O and knows no event loop: messages come in through `receive`, go out through
the gate, time passes through `doTick(0)`, and the same code runs in a simulator.

Invariants:

- Nothing that promises durability leaves before it is durable (the gate), and the leader's own copy
  counts only after its own fsync: a follower's match index is capped by the leader's durable index.
- Only an entry whose term differs is truncated, never one at or below the commit index: that stops
  the node.
- The commit index moves only to what the message at hand has verified.
- Replies carry the term and echo the sequence; those of another term are ignored.
- A voter counts once, and only if it is a member.
- Apply never passes the durable index; a client hears of an entry after it was applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from ..storage.wal import Entry
from .config import Timing
from .gate import Gate
from .journal import RaftJournal
from .messages import (
    AppendEntries,
    AppendReply,
    Message,
    PreVoteReply,
    PreVoteRequest,
    TimeoutNow,
    Vote,
    VoteRequest,
    pack_entries,
)
from .read_gate import ReadGate
from .upstream import CANDIDATE, COMMAND, FOLLOWER, LEADER, Stock, now

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
"""An AppendEntries is closed once it holds this much (a larger entry travels alone)."""
WINDOW_BYTES = 8 << 20
"""Sent but not acknowledged, per follower."""
APPLY_BYTES = 4 << 20
"""Applied in one turn of the event loop."""
COMMIT_NOTICE_S = 0.001
"""With nothing else to send, followers learn a new commit index this much later."""


class Fatal(BaseException):
    """The node must stop: going on could break a promise already made."""


class Proposal(Protocol):
    """Who waits for an entry. Exactly one of the three is called, once."""

    def applied(self, result: Any) -> None: ...
    def replaced(self) -> None:
        """Another entry was committed in its place: certainly never written."""

    def unknown(self) -> None:
        """Leadership was lost: the entry may still be committed."""


class Machine(Protocol):
    """What entries are applied to. `apply` is total and deterministic; if it raises, the node
    stops.
    """

    @property
    def applied_index(self) -> int: ...
    def ready(self) -> bool:
        """False while too much of what was applied waits for the disk."""

    def apply(self, index: int, term: int, command: memoryview | None) -> Any:
        """Apply one committed entry, None for a leader's no-op, and return its result."""


@dataclass(slots=True)
class Progress:
    """What the leader knows of one follower."""

    acked: int = 0
    """Everything up to here is durable there."""
    sequence: int = 0
    """Newest message of ours that it answered."""
    rewound_at: int = -1
    """Rejections of messages up to this sequence are answered already."""
    told_commit: int = 0
    """Newest commit index it was sent."""


@dataclass(slots=True)
class HandOver:
    """Leadership on its way to another node; no proposals are taken meanwhile."""

    target: Node
    until: float
    sent: bool = False


@dataclass(slots=True)
class PreVote:
    """One round of asking whether an election could be won."""

    term: int
    round: int
    until: float
    granted: set[str]


class RaftCore(SyncObj):  # type: ignore[misc]
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
        node_id: str,
        peers: list[str],
        *,
        timing: Timing,
        journal: RaftJournal,
        gate: Gate,
        machine: Machine,
    ) -> None:
        self.node_id = node_id
        self.journal = journal
        self.gate = gate
        self.machine = machine
        self.timing = timing
        self.nodes = {peer: Node(peer) for peer in peers}
        self.backlog = False
        """Committed entries wait to be applied and nothing but another turn is needed."""
        self.synced = False
        """Has applied everything that was committed before this node started."""
        self._progress: dict[Node, Progress] = {}
        self._waiting: dict[int, tuple[int, Proposal]] = {}
        self._sequence = 0
        self._kick = False
        self._heard = float("-inf")
        self._voters: set[str] = set()
        self._pre_vote: PreVote | None = None
        self._notice_at: float | None = None
        self._handing_over: HandOver | None = None
        self._packed: tuple[int, int, int, list[Entry]] | None = None
        self._reads = ReadGate()
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=timing.append_period_s,
            raftMinTimeout=timing.election_timeout_s_min,
            raftMaxTimeout=timing.election_timeout_s_max,
            leaderFallbackTimeout=timing.check_quorum_s,
            connectionTimeout=max(3.5, timing.election_timeout_s_max),
        )
        super().__init__(Node(node_id), list(self.nodes.values()), conf, transport=gate)
        self._poller = _NoSockets()
        self._need_dump = False
        self._stock_log = journal
        self._term, self._voted_for = journal.getCurrentTerm(), journal.getVotedForNodeId()
        self._applied = self._commit = machine.applied_index
        if self._applied < journal.base_index:
            raise Fatal(f"applied up to {self._applied}, the log begins after {journal.base_index}")

    # ---- what the rest of the product asks

    def is_leader(self) -> bool:
        return bool(self._state == LEADER)

    def state_name(self) -> str:
        names = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader"}
        return names[self._state]

    def leader_id(self) -> str | None:
        return self._leader.id if self._leader is not None else None

    def term(self) -> int:
        return self._term

    def commit_index(self) -> int:
        return self._commit

    def applied_index(self) -> int:
        return self._applied

    def silence_s(self) -> float:
        """Seconds since the leader was last heard; 0 on the leader."""
        return 0.0 if self.is_leader() else now() - self._heard

    def match_index(self, peer: str) -> int | None:
        progress = self._progress.get(self.nodes[peer])
        return progress.acked if progress is not None and self.is_leader() else None

    def last_seen_s(self, peer: str) -> float | None:
        """Seconds since `peer` answered this leader, or led this follower; None if unknown."""
        node = self.nodes[peer]
        if self.is_leader():
            return now() - self._responded[node] if node in self._responded else None
        return now() - self._heard if node == self._leader else None

    def is_connected(self, peer: str) -> bool:
        return self.nodes[peer] in self._connected

    def uncommitted_bytes(self) -> int:
        return self.journal.bytes_between(self._commit, self.journal.last_index)

    def next_wake(self) -> float:
        """When, by `upstream.now`, the next tick is due at the latest."""
        if self.is_leader():
            due = self._next_heartbeat
            return due if self._notice_at is None else min(due, self._notice_at)
        soon = now() + 0.01
        return max(self._deadline, soon)

    # ---- proposals

    def propose(self, command: bytes, proposal: Proposal) -> int | None:
        """Append `command` as the next entry and return its index; None if this node does not take
        proposals.
        """
        if not self.is_leader() or self._handing_over is not None:
            return None
        index = self.journal.last_index + 1
        self.journal.add(COMMAND + command, index, self._term)
        self._waiting[index] = (self._term, proposal)
        self._kick = True
        return index

    def read_index(self, answer: Callable[[int | None], None]) -> None:
        """Answer with an index; a read at or above it shows all that was acknowledged before. None:
        not the leader.

        Needs this term's no-op committed, or the commit index may lag behind the previous leader's
        (Raft, section 8).
        """
        if not self.is_leader() or self._noop_index is None:
            answer(None)
            return
        self._reads.add(max(self._commit, self._noop_index), self._sequence, answer)
        self._kick = True

    def hand_over(self, peer: str | None = None) -> bool:
        """Stop taking proposals and pass leadership to `peer`, or to the most advanced follower,
        once it has all.
        """
        candidates = [node for node in self._others if node in self._connected]
        if peer is not None:
            candidates = [node for node in candidates if node.id == peer]
        if not self.is_leader() or not candidates:
            return False
        target = max(candidates, key=lambda node: (self._progress[node].acked, node.id))
        self._handing_over = HandOver(target, now() + self.timing.election_timeout_s_max)
        return True

    # ---- messages

    def receive(self, peer: str, message: Message) -> None:
        """Take one message from a peer the transport vouches for."""
        handler = self._HANDLERS.get(type(message))
        if handler is not None and peer in self.nodes:
            handler(self, self.nodes[peer], message)

    def connected(self, peer: str) -> None:
        """A connection to `peer` is open: whatever was under way on an older one is lost."""
        node = self.nodes[peer]
        self.gate._onNodeConnected(node)
        if self.is_leader() and node in self._progress:
            acked = self._progress[node].acked
            self._next[node] = (acked or self.journal.last_index) + 1
            self._kick = True

    def disconnected(self, peer: str) -> None:
        """The connection to `peer` broke. If it led, its process is most likely gone: do not wait
        for the timer.
        """
        node = self.nodes[peer]
        self.gate.forget(peer)
        self.gate._onNodeDisconnected(node)
        if node == self._leader and self._state == FOLLOWER:
            self._leader, self._heard = None, float("-inf")
            self._deadline = min(self._deadline, now() + 0.3 * self._election_timeout())

    def still_receiving(self, peer: str) -> None:
        """Part of a message of `peer` arrived: as good as a heartbeat if it leads."""
        if self._state == FOLLOWER and self._leader == self.nodes[peer]:
            self._deadline = max(self._deadline, now() + self.timing.election_timeout_s_min)

    # ---- elections: the stock skeleton, with pre-vote, stickiness and a set of voters

    def _election_timeout(self) -> float:
        return float(self._SyncObj__generateRaftTimeout())

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
        last = self.journal
        request = PreVoteRequest(self._term, self._sequence, last.last_index, last.last_term)
        for peer in self.nodes:
            self.gate.post(peer, request)
        return False

    def _may_campaign(self) -> bool:
        self._pre_vote = None
        self._voters.clear()
        return True

    def _on_pre_vote_request(self, node: Node, request: PreVoteRequest) -> None:
        theirs = (request.last_term, request.last_index)
        ours = (self.journal.last_term, self.journal.last_index)
        granted = request.term >= self._term and theirs >= ours and not self._leader_is_fresh()
        self.gate.post(node.id, PreVoteReply(self._term, request.round, granted))

    def _on_pre_vote_reply(self, node: Node, reply: PreVoteReply) -> None:
        if reply.term > self._term:
            self._step_down(reply.term)
        elif reply.granted and self._pre_vote and self._pre_vote.round == reply.round:
            self._pre_vote.granted.add(node.id)

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
            self._handing_over = self._notice_at = None
            self._reads.fail()
            waiting, self._waiting = self._waiting, {}
            for _, proposal in waiting.values():
                proposal.unknown()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        self._progress = {node: Progress() for node in self._others}
        self._reads.fail()
        super()._SyncObj__onBecomeLeader()
        self._kick = True
        logger.info("became leader", extra={"term": self._term, "index": self._noop_index})

    # ---- following

    def _on_append(self, node: Node, message: AppendEntries) -> None:
        if not self._follow(node, message):
            return
        journal, entries = self.journal, message.entries
        verified = message.prev_index + len(entries)
        if message.prev_index > journal.last_index:
            self._reply(node, message, journal.last_index + 1, success=False)
            return
        if message.prev_index < journal.base_index:
            entries = entries[journal.base_index - message.prev_index :]
        elif journal.term_at(message.prev_index) != message.prev_term:
            # All this node knows to be common with the leader's log.
            self._reply(node, message, self._commit + 1, success=False)
            return
        self._append_new(node, entries)
        self._commit = max(self._commit, min(message.commit_index, verified))
        self._leader_commit = self._commit
        self._note_synced(message, verified)
        self._reply(node, message, verified + 1, success=True)

    def _follow(self, node: Node, message: AppendEntries) -> bool:
        """Accept `node` as the leader of its term; False if the term is over."""
        if message.term < self._term:
            # Our higher term makes it step down.
            self._reply(node, message, self.journal.last_index + 1, success=False)
            return False
        if message.term > self._term:
            self._SyncObj__setCurrentTerm(message.term, None)
            self._transfer_pending = False
        elif self.is_leader():
            raise Fatal(f"two leaders in term {self._term}: {self.node_id} and {node.id}")
        self._SyncObj__setState(FOLLOWER)
        if not self._transfer_pending:
            self._deadline = now() + self._election_timeout()
        if self._leader != node:
            logger.info("follows", extra={"leader": node.id, "term": self._term})
        self._leader, self._heard, self._pre_vote = node, now(), None
        return True

    def _append_new(self, node: Node, entries: list[Entry]) -> None:
        """Append what is not in the log yet, truncating only where a term differs."""
        journal = self.journal
        known = 0
        for entry in entries:
            if entry.index > journal.last_index or journal.term_at(entry.index) != entry.term:
                break
            known += 1
        new = entries[known:]
        if not new:
            return
        first = new[0].index
        if first <= journal.last_index:
            if first <= self._commit:
                raise Fatal(f"{node.id} wants to overwrite committed entry {first}")
            journal.truncate(first)
        journal.extend(new)

    def _note_synced(self, message: AppendEntries, verified: int) -> None:
        """A commit index of the leader's own term covers all that was ever committed before it."""
        commit = message.commit_index
        if self.synced or commit > min(verified, self._applied) or commit < self.journal.base_index:
            return
        self.synced = self.journal.term_at(commit) == message.term

    def _reply(self, node: Node, message: AppendEntries, next_index: int, *, success: bool) -> None:
        reply = AppendReply(self._term, message.sequence, next_index, success)
        self.gate.post(node.id, reply)

    # ---- leading

    def _on_append_reply(self, node: Node, reply: AppendReply) -> None:
        if reply.term > self._term:
            self._step_down(reply.term)
            return
        progress = self._progress.get(node)
        if not self.is_leader() or progress is None or reply.term != self._term:
            return
        self._responded[node] = now()
        progress.sequence = max(progress.sequence, reply.sequence)
        if reply.success:
            progress.acked = max(progress.acked, reply.next_index - 1)
            self._next[node] = max(self._next[node], progress.acked + 1)
            self._match[node] = min(progress.acked, self.journal.durable_index)
            self._kick = self._kick or self._next[node] <= self.journal.last_index
        elif reply.sequence > progress.rewound_at:
            self._rewind(node, progress, reply)
        if self._reads:
            self._kick = True

    def _rewind(self, node: Node, progress: Progress, reply: AppendReply) -> None:
        """Go back once per flight, never below what was acknowledged."""
        progress.rewound_at = self._sequence
        if reply.next_index > progress.acked:
            self._kick = True
        else:
            logger.error(
                "a follower lost acknowledged entries",
                extra={"peer": node.id, "acked": progress.acked, "has": reply.next_index - 1},
            )
        self._next[node] = max(progress.acked + 1, min(reply.next_index, self._next[node]))

    def on_durable(self) -> None:
        """The journal finished an fsync: what followers acknowledged before it now counts."""
        if self.is_leader():
            durable = self.journal.durable_index
            for node, progress in self._progress.items():
                self._match[node] = min(progress.acked, durable)

    def entries_loaded(self) -> None:
        """Cold entries some follower or apply waits for are in memory."""
        self._kick = True

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """Called by stock code once a period: a heartbeat, with entries if there are any."""
        self._next_heartbeat = now() + self.timing.append_period_s
        for node in self._others:
            self._replicate(node, heartbeat=True)

    def _replicate(self, node: Node, *, heartbeat: bool) -> None:
        """Send what the follower's window allows; an empty message if `heartbeat` and there is
        nothing.
        """
        progress, journal = self._progress[node], self.journal
        while node in self._connected:
            start = self._next[node]
            entries = self._sendable(start, progress)
            if not entries and not heartbeat:
                return
            self._sequence += 1
            commit = min(self._commit, journal.durable_index)
            prev_term = journal.term_at(start - 1)
            packed = self._pack(start, entries)
            message = AppendEntries(
                self._term, self._sequence, commit, start - 1, prev_term, packed
            )
            self._next[node] = start + len(entries)
            progress.told_commit = commit
            self.gate.post(node.id, message)
            heartbeat = False

    def _sendable(self, start: int, progress: Progress) -> list[Entry]:
        journal = self.journal
        if start > journal.last_index:
            return []
        if journal.bytes_between(progress.acked, start - 1) >= WINDOW_BYTES:
            return []
        return journal.read(start, BATCH_BYTES) or []

    def _pack(self, start: int, entries: list[Entry]) -> list[Entry]:
        """Encode `entries` once for all followers that get the same ones."""
        if not entries:
            return entries
        key = (self._term, start, entries[-1].index)
        if self._packed is None or self._packed[:3] != key:
            self._packed = (*key, pack_entries(entries))
        return self._packed[3]

    # ---- the tick

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803
        committed = self._commit
        super()._onTick(0.0)
        if not self.is_leader():
            return
        if self._noop_index is not None and self._applied >= self._noop_index:
            self.synced = True
        if self._commit > committed and self._notice_at is None:
            self._notice_at = now() + COMMIT_NOTICE_S
        self._replicate_new()
        self._reads.check(self._echoed, self._quorum)
        if self._handing_over is not None:
            self._hand_over_when_ready(self._handing_over)

    def _replicate_new(self) -> None:
        round_needed = self._reads.start_round(self._sequence)
        notice = self._notice_at is not None and now() >= self._notice_at
        if not (self._kick or round_needed or notice):
            return
        self._kick = False
        commit = min(self._commit, self.journal.durable_index)
        for node in self._others:
            behind = notice and self._progress[node].told_commit < commit
            self._replicate(node, heartbeat=round_needed or behind)
        if notice:
            self._notice_at = None

    def _echoed(self, sequence: int) -> int:
        """Count the nodes, this one included, that answered a message after `sequence`."""
        return 1 + sum(progress.sequence > sequence for progress in self._progress.values())

    def _hand_over_when_ready(self, hand_over: HandOver) -> None:
        if now() > hand_over.until:
            self._handing_over = None
        elif not hand_over.sent and self._match[hand_over.target] == self.journal.last_index:
            hand_over.sent = True
            self.transferLeadership(hand_over.target)

    # ---- applying

    def _SyncObj__getEntries(  # noqa: N802
        self,
        fromIDx: int,  # noqa: N803
        count: int | None = None,
        maxSizeBytes: int | None = None,  # noqa: N803
    ) -> list[tuple[bytes, int, int]]:
        """Stock code counts commits with this and looks only at the term."""
        return [(b"", fromIDx, self.journal.term_at(fromIDx))]

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        limit = min(self._commit, self.journal.durable_index)
        budget = APPLY_BYTES
        while self._applied < limit and budget > 0 and self.machine.ready():
            entries = self.journal.read(self._applied + 1, budget, limit + 1)
            if entries is None:
                break
            for entry in entries:
                self._apply(entry)
                budget -= len(entry.payload)
        self.backlog = self._applied < limit and budget <= 0
        return False

    def _apply(self, entry: Entry) -> None:
        payload = entry.payload
        command = memoryview(payload)[1:] if payload[:1] == COMMAND else None
        result = self.machine.apply(entry.index, entry.term, command)
        self._applied = entry.index
        term, proposal = self._waiting.pop(entry.index, (0, None))
        if proposal is None:
            return
        if term == entry.term:
            proposal.applied(result)
        else:
            proposal.replaced()

    # ---- stock paths that must not run

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """There is no command queue: `propose` appends at once."""

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """The checkpoint decides what the log may forget."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        raise Fatal("pysyncobj's snapshots must not be loaded")

    _HANDLERS: dict[type, Callable[..., None]] = {  # noqa: RUF012
        AppendEntries: _on_append,
        AppendReply: _on_append_reply,
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
