"""Raft, with pysyncobj's elections and our own replication.

pysyncobj 0.3.17 loses acknowledged writes in seven ways (DESIGN.md beside this file names them).
`Elections` keeps its election skeleton; `Following` and `RaftCore`, which leads, replace the rest:
appending, acknowledging, applying, reading. None of them does I/O or knows an event loop: messages
come in through `receive`, go out through the gate, time passes through `doTick(0)`, and the same
code runs in a simulator.

Invariants:

- Nothing that promises durability leaves before it is durable (the gate), and the leader's own copy
  counts only after its own fsync: a follower's match index is capped by the leader's durable index.
- Only an entry whose term differs is truncated, never one at or below the commit index: that stops
  the node.
- The commit index moves only to what the message at hand has verified.
- Replies carry the term and echo the sequence; those of another term are ignored.
- A voter counts once, and only if it is a member by the newest config in the log (`members.py`).
- One voter changes at a time, the change before and this term's no-op applied; never the leader.
- Apply never passes the durable index; a client hears of an entry after it was applied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj.node import Node

from ..storage.wal import Entry
from .config import Timing
from .errors import MembershipConflict
from .following import Following, Machine
from .gate import Gate
from .journal import RaftJournal
from .members import Config, Members, encode_config, is_one_step, next_step
from .messages import (
    Alive,
    AppendEntries,
    AppendReply,
    CommitNotice,
    Message,
    SnapshotOffer,
    pack_entries,
)
from .progress import HandOver, Progress, SnapshotMark
from .read_gate import ReadGate
from .upstream import CANDIDATE, COMMAND, MEMBERS, now

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
"""An AppendEntries is closed once it holds this much (a larger entry travels alone)."""
WINDOW_BYTES = 8 << 20
"""Sent but not acknowledged, per follower."""
CAUGHT_UP_BYTES = 256 << 10
"""A learner that lacks no more than this may become a voter."""
COMMIT_NOTICE_S = 0.001
"""With nothing else to send, followers learn a new commit index this much later (CommitNotice)."""


class Proposal(Protocol):
    """Who waits for an entry. One of the two is called, once."""

    def applied(self, result: Any) -> None: ...
    def unknown(self) -> None:
        """Leadership was lost: the entry may still be committed."""


class RaftCore(Following):
    def __init__(
        self,
        members: Members,
        *,
        timing: Timing,
        journal: RaftJournal,
        gate: Gate,
        machine: Machine,
    ) -> None:
        self.snapshot: SnapshotMark | None = None
        """Set by the engine while `needs_snapshot`."""
        self.needs_snapshot = False
        """Some follower is behind the log."""
        self._progress: dict[Node, Progress] = {}
        self._waiting: dict[int, Proposal] = {}
        """By index. A leader never truncates: who waits here when leadership is lost is unknown."""
        self._kick = False
        self._notice_at: float | None = None
        self._handing_over: HandOver | None = None
        self._packed: tuple[int, int, int, list[Entry]] | None = None
        self._reads = ReadGate()
        super().__init__(
            members,
            timing=timing,
            journal=journal,
            gate=gate,
            machine=machine,
        )

    # ---- how far it is

    def match_index(self, peer: str) -> int | None:
        progress = self._progress.get(self._node(peer))
        return progress.acked if progress is not None and self.is_leader() else None

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
        self._waiting[index] = proposal
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
        candidates = [node for node in self._seated & self._connected if peer in (None, node.id)]
        if not self.is_leader() or not candidates:
            return False
        target = max(candidates, key=lambda node: (self._progress[node].acked, node.id))
        self._handing_over = HandOver(target, now() + self.timing.election_timeout_s_max)
        return True

    # ---- messages

    def receive(self, peer: str, message: Message) -> bool:
        """Take one message from a peer the transport vouches for. False: no tick is due for it."""
        handler = self._HANDLERS.get(type(message))
        return handler is not None and handler(self, self._node(peer), message) is not False

    def connected(self, peer: str) -> None:
        """A connection to `peer` is open: whatever was under way on an older one is lost."""
        super().connected(peer)
        node = self._node(peer)
        if self.is_leader() and node in self._progress:
            acked = self._progress[node].acked
            self._next[node] = (acked or self.journal.last_index) + 1
            self._kick = True

    def introduced(self, peer: str, incarnation: str) -> None:
        is_new = self._incarnations.get(peer) != incarnation
        super().introduced(peer, incarnation)
        if is_new and self._progress.pop(self._node(peer), None) is not None:
            # What another disk acknowledged says nothing of this one.
            self._lead_members()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        self._progress = {}
        self._lead_members()
        self._reads.fail()
        super()._SyncObj__onBecomeLeader()
        if not self.members.is_known:
            self._append_config(self.members.founding(self._incarnations))
        self._kick = True
        logger.info("became leader", extra={"term": self._term, "index": self._noop_index})

    def _was_applied(self, index: int, result: Any) -> None:
        proposal = self._waiting.pop(index, None)
        if proposal is not None:
            proposal.applied(result)

    def _leadership_lost(self) -> None:
        self._handing_over = self._notice_at = None
        self._progress = {}
        self._reads.fail()
        waiting, self._waiting = self._waiting, {}
        for proposal in waiting.values():
            proposal.unknown()

    # ---- members, on the leader

    def may_change_members(self) -> bool:
        """Is there no change under way, and all that earlier leaders committed known?"""
        if not self.is_leader() or self._noop_index is None or self._handing_over is not None:
            return False
        return bool(self._applied >= max(self.members.index, self._noop_index))

    def change_members(self, config: Config) -> None:
        """Append `config`, which rules at once. MembershipConflict."""
        me = config.get(self.node_id)
        if not self.may_change_members():
            raise MembershipConflict("another change of members is not committed yet")
        if me is None or not me.is_voter or not is_one_step(self.members.newest, config):
            raise MembershipConflict("one voter at a time, and not the leader")
        if not self._has_majority(config):
            raise MembershipConflict("too few of the voters that would remain are alive")
        self._append_config(config)

    def _has_majority(self, config: Config) -> bool:
        """Could the voters in `config` commit anything now?"""
        horizon = now() - self.timing.check_quorum_s
        voters = config.voters()
        alive = {node.id for node in self._seated if self._responded[node] > horizon}
        return 2 * (1 + len(alive & voters.keys())) > len(voters)

    def _append_config(self, config: Config) -> None:
        index = self.journal.last_index + 1
        self.journal.add(MEMBERS + encode_config(config), index, self._term)
        self.members.add(index, config)
        self._adopt()
        self._kick = True
        roles = {member.id: member.role for member in config.members}
        logger.info("changes members", extra={"index": index, "members": roles})

    def _adopt(self) -> None:
        super()._adopt()
        if self.is_leader():
            self._lead_members()

    def _lead_members(self) -> None:
        """Have a Progress for everybody who gets entries, and for nobody else."""
        targets = self._others | self._learners
        for node in targets - set(self._progress):
            self._progress[node] = Progress()
            self._next[node] = self.journal.last_index + 1
            self._responded[node] = now()
        for node in set(self._progress) - targets:
            del self._progress[node]
        self.on_durable()
        if self._handing_over is not None and self._handing_over.target not in self._others:
            self._handing_over = None

    def _is_caught_up(self, peer: str) -> bool:
        progress = self._progress.get(self._node(peer))
        if progress is None or progress.acked < self.members.index:
            return False
        missing = self.journal.bytes_between(progress.acked, self.journal.last_index)
        return missing <= CAUGHT_UP_BYTES

    def _change_by_itself(self) -> None:
        if self.may_change_members():
            step = next_step(self.members.newest, self._incarnations, self._is_caught_up)
            if step is not None:
                self._append_config(step)

    # ---- leading

    def _on_append_reply(self, node: Node, reply: AppendReply) -> bool:
        if reply.term > self._term:
            self._step_down(reply.term)
            return True
        progress = self._progress.get(node)
        if not self.is_leader() or progress is None or reply.term != self._term:
            return False
        self._responded[node] = now()
        progress.sequence = max(progress.sequence, reply.sequence)
        was_full, progress.is_full = progress.is_full, reply.is_full
        progress.is_short = reply.is_short
        if reply.success:
            progress.acked = max(progress.acked, reply.next_index - 1)
            # What was sent to a full disk was not taken.
            again = was_full or progress.is_full
            self._next[node] = max(0 if again else self._next[node], progress.acked + 1)
            self._count(node, progress)
            self._kick = self._kick or self._next[node] <= self.journal.last_index
        elif reply.sequence > progress.rewound_at:
            self._rewind(node, progress, reply)
        if self._reads:
            self._kick = True
        return self.has_work()

    def _on_alive(self, node: Node, message: Alive) -> bool:
        if self.is_leader() and node in self._progress and message.term == self._term:
            self._responded[node] = now()
        return False

    def has_work(self) -> bool:
        """Would a tick do something now, not only when its time has come?"""
        if super().has_work() or self._kick or self._handing_over is not None:
            return True
        if not self.is_leader():
            return False
        # Whoever is no member yet, or not as it shall be, is looked at in every tick.
        return self._may_commit() or len(self._seated) < len(self._progress)

    def _may_commit(self) -> bool:
        """Does anybody count for more than what is committed?"""
        if not self._others:
            return self._commit < self.journal.durable_index
        return self._commit < max(self._match.values(), default=0)

    def majority_has_room(self) -> bool:
        """Could an append be stored by a majority without anybody's reserve?"""
        others = sum(not self._progress[node].is_short for node in self._others)
        return self._quorum(others + (not self.disk_is_short))

    def roomy_follower(self) -> str | None:
        """A connected follower whose disk has room, the most advanced one."""
        candidates = [
            (self._progress[node].acked, node.id)
            for node in self._seated & self._connected
            if not self._progress[node].is_short
        ]
        return max(candidates)[1] if candidates else None

    def _rewind(self, node: Node, progress: Progress, reply: AppendReply) -> None:
        """Go back once per flight, never below what was acknowledged: unless it is lost."""
        progress.rewound_at = self._sequence
        has = reply.next_index - 1
        if has < progress.acked and reply.sequence == progress.sequence:
            # Its disk garbled the end of its log, and it could not tell that from a torn write.
            logger.error(
                "a follower lost acknowledged entries",
                extra={"peer": node.id, "acked": progress.acked, "has": has},
            )
            progress.acked = has
            self._count(node, progress)
        self._kick = True
        self._next[node] = max(progress.acked + 1, min(reply.next_index, self._next[node]))

    def on_durable(self) -> None:
        """The journal finished an fsync: what followers acknowledged before it now counts."""
        for node, progress in self._progress.items():
            self._count(node, progress)

    def _count(self, node: Node, progress: Progress) -> None:
        counts = node in self._seated
        self._match[node] = min(progress.acked, self.journal.durable_index) if counts else 0

    def entries_loaded(self) -> None:
        """Cold entries some follower or apply waits for are in memory."""
        self._kick = True

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """Called by stock code once a period: a heartbeat, with entries if there are any."""
        self._next_heartbeat = now() + self.timing.append_period_s
        for node in self._progress:
            self._replicate(node, heartbeat=True)

    def _replicate(self, node: Node, *, heartbeat: bool) -> None:
        """Send what the follower's window allows; an empty message if `heartbeat` and there is
        nothing.
        """
        progress, journal = self._progress[node], self.journal
        while node in self._connected:
            start = self._next[node]
            if start <= journal.base_index:
                self._offer_snapshot(node, heartbeat=heartbeat)
                return
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

    def _offer_snapshot(self, node: Node, *, heartbeat: bool) -> None:
        """Say once per heartbeat what there is; the follower fetches it by itself."""
        self.needs_snapshot = True
        if heartbeat and self.snapshot is not None:
            self._sequence += 1
            mark = self.snapshot
            offer = SnapshotOffer(self._term, self._sequence, mark.index, mark.term, mark.size)
            self.gate.post(node.id, offer)

    def _sendable(self, start: int, progress: Progress) -> list[Entry]:
        journal = self.journal
        if start > journal.last_index or progress.is_full:
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
        if self._is_stock_tick_due():
            super()._onTick(0.0)
        if not self.is_leader():
            return
        if self._noop_index is not None and self._applied >= self._noop_index:
            self.synced = True
        if self._commit > committed and self._notice_at is None:
            self._notice_at = now() + COMMIT_NOTICE_S
        self._replicate_new()
        self._reads.check(self._echoed, self._quorum)
        self._change_by_itself()
        if self._handing_over is not None:
            self._hand_over_when_ready(self._handing_over)

    def _is_stock_tick_due(self) -> bool:
        """Stock code counts votes, commits and the living, applies, and looks at its timers; most
        turns of the loop have nothing of that for it.
        """
        if super().has_work():
            return True
        if self.is_leader():
            return now() > self._next_heartbeat or self._may_commit()
        return self._state == CANDIDATE or now() > self._deadline

    def _replicate_new(self) -> None:
        round_needed = self._reads.start_round(self._sequence)
        if self._kick or round_needed:
            self._kick = False
            for node in self._progress:
                self._replicate(node, heartbeat=round_needed)
        if self._notice_at is not None and now() >= self._notice_at:
            self._notice_at = None
            self._tell_commit()

    def _tell_commit(self) -> None:
        commit = min(self._commit, self.journal.durable_index)
        notice = CommitNotice(self._term, commit, self.journal.term_at(commit))
        for node, progress in self._progress.items():
            if progress.told_commit < commit and node in self._connected:
                progress.told_commit = commit
                self.gate.post(node.id, notice)

    def _echoed(self, sequence: int) -> int:
        """Count the nodes, this one included, that answered a message after `sequence`."""
        return 1 + sum(self._progress[node].sequence > sequence for node in self._seated)

    def _hand_over_when_ready(self, hand_over: HandOver) -> None:
        if now() > hand_over.until:
            self._handing_over = None
        elif not hand_over.sent and self._match[hand_over.target] == self.journal.last_index:
            hand_over.sent = True
            self.transferLeadership(hand_over.target)

    _HANDLERS = Following._HANDLERS | {AppendReply: _on_append_reply, Alive: _on_alive}
