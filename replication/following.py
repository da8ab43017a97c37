"""A node that follows: takes the leader's entries, says what it has, applies what is committed.

See `raft.py` for the invariants.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from pysyncobj.node import Node

from ..storage.wal import Entry
from .config import Timing
from .elections import Elections, Fatal
from .gate import Gate
from .journal import RaftJournal
from .members import Config, Members, decode_config
from .messages import Alive, AppendEntries, AppendReply, CommitNotice, SnapshotOffer
from .upstream import COMMAND, FOLLOWER, MEMBERS, now

logger = logging.getLogger(__name__)

APPLY_BYTES = 4 << 20
"""Applied in one turn of the event loop."""


class Machine(Protocol):
    """What entries are applied to. `apply` is total and deterministic; if it raises, the node
    stops.
    """

    @property
    def applied_index(self) -> int: ...
    def ready(self) -> bool:
        """False while too much of what was applied waits for the disk."""

    def apply(self, index: int, term: int, command: memoryview | None) -> Any:
        """Apply one committed entry, None for one of Raft's own, and return its result."""

    def settle(self, index: int, config: Config) -> None:
        """The entry at `index`, which is applied next, names the cluster's members."""


class Following(Elections):
    """What every node does, the leader too as far as it applies."""

    def __init__(
        self,
        members: Members,
        *,
        timing: Timing,
        journal: RaftJournal,
        gate: Gate,
        machine: Machine,
    ) -> None:
        self.machine = machine
        self.backlog = False
        """Committed entries wait to be applied and nothing but another turn is needed."""
        self.synced = False
        """Has applied everything that was committed before this node started."""
        self.disk_is_short = False
        """Told to the leader, which then takes no appends if that leaves no majority."""
        self.disk_is_full = False
        """No entries are accepted."""
        self._agreed = (0, 0)
        """A term, and how far its leader's log was found to be this node's."""
        self._alive_at = float("-inf")
        """Not before then the leader hears again that this node is alive."""
        self.offered: tuple[str, SnapshotOffer] | None = None
        """What the leader offered to this node; the engine takes it."""
        super().__init__(
            members,
            timing=timing,
            journal=journal,
            gate=gate,
            applied_index=machine.applied_index,
        )

    def commit_index(self) -> int:
        return self._commit

    def applied_index(self) -> int:
        return self._applied

    # ---- what the leader sends

    def _on_append(self, node: Node, message: AppendEntries) -> None:
        if not self._follow(node, message):
            return
        journal, entries = self.journal, [] if self.disk_is_full else message.entries
        verified = message.prev_index + len(entries)
        if message.prev_index > journal.last_index:
            self._reply(node, message, journal.last_index + 1, success=False)
            return
        if message.prev_index < journal.base_index:
            entries = entries[journal.base_index - message.prev_index :]
        elif journal.term_at(message.prev_index) != message.prev_term:
            self._reply(node, message, self._agreed_index() + 1, success=False)
            return
        self._append_new(node, entries)
        self._commit = max(self._commit, min(message.commit_index, verified))
        self._leader_commit = self._commit
        self._agreed = (message.term, max(verified, self._agreed_index()))
        self._note_synced(message, verified)
        self._reply(node, message, verified + 1, success=True)

    def _on_commit_notice(self, node: Node, notice: CommitNotice) -> bool:
        """Commit up to an entry that is here as the leader has it; else the next heartbeat tells.
        True if there is something to apply.
        """
        if notice.term != self._term or node != self._leader:
            return False
        index, journal = notice.commit_index, self.journal
        is_here = journal.base_index <= index <= journal.last_index
        if index <= self._commit or not is_here or journal.term_at(index) != notice.commit_term:
            return False
        self._commit = self._leader_commit = index
        return True

    def _agreed_index(self) -> int:
        """Up to here this node knows its log to be the leader's."""
        term, index = self._agreed
        return max(self._commit, index if term == self._term else 0)

    def _follow(self, node: Node, message: AppendEntries | SnapshotOffer) -> bool:
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
        self._follow_members(first, new)

    def _follow_members(self, first: int, new: list[Entry]) -> None:
        """The log was changed from entry `first` on."""
        changed = self.members.truncate(first)
        for entry in new:
            if entry.payload[:1] == MEMBERS:
                self.members.add(entry.index, decode_config(entry.payload[1:]))
                changed = True
        if changed:
            self._adopt()

    def _note_synced(self, message: AppendEntries, verified: int) -> None:
        """A commit index of the leader's own term covers all that was ever committed before it."""
        commit = message.commit_index
        if self.synced or commit > min(verified, self._applied) or commit < self.journal.base_index:
            return
        self.synced = self.journal.term_at(commit) == message.term

    def _reply(
        self,
        node: Node,
        message: AppendEntries | SnapshotOffer,
        next_index: int,
        *,
        success: bool,
    ) -> None:
        room = (self.disk_is_short, self.disk_is_full)
        reply = AppendReply(self._term, message.sequence, next_index, success, *room)
        is_sent = self.gate.post(node.id, reply)
        if not is_sent and now() >= self._alive_at:
            # The leader must not take a slow disk for a dead node, and step down.
            self._alive_at = now() + self.timing.append_period_s
            self.gate.post(node.id, Alive(self._term))

    def _on_snapshot_offer(self, node: Node, offer: SnapshotOffer) -> None:
        """The leader's log begins behind this one's end: fetch its state, unless it is known."""
        if not self._follow(node, offer):
            return
        if offer.index <= self._commit:
            # What is committed here is in the leader's log too.
            self._reply(node, offer, self._commit + 1, success=True)
            return
        self.offered = (node.id, offer)
        self._reply(node, offer, self.journal.last_index + 1, success=False)

    # ---- applying

    def has_work(self) -> bool:
        """Is there something to apply now?"""
        return self._applied < min(self._commit, self.journal.durable_index)

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
        if payload[:1] == MEMBERS:
            self.machine.settle(entry.index, decode_config(payload[1:]))
            self.members.settle(entry.index)
        result = self.machine.apply(entry.index, entry.term, command)
        self._applied = entry.index
        self._was_applied(entry.index, result)

    def _was_applied(self, index: int, result: Any) -> None:
        """Tell who waits for it."""
        raise NotImplementedError

    _HANDLERS = Elections._HANDLERS | {
        AppendEntries: _on_append,
        CommitNotice: _on_commit_notice,
        SnapshotOffer: _on_snapshot_offer,
    }
