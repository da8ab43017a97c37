"""What keeps the log, the state and the answers right."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cute_logger.replication import snapshot
from cute_logger.replication.coalescer import Entry as ProposedEntry
from cute_logger.replication.commands import AppendBatch
from cute_logger.replication.dedupe import KeyTable, ProducerTable
from cute_logger.replication.engine import Engine
from cute_logger.replication.errors import ConditionFailed, NoLeader
from cute_logger.replication.gate import Gate
from cute_logger.replication.journal import RaftJournal
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.messages import (
    AppendEntries,
    Message,
    PreVoteReply,
    PreVoteRequest,
)
from cute_logger.replication.raft import RaftCore
from cute_logger.replication.read_gate import ReadGate
from cute_logger.replication.sim.modes import Mode
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.storage.log import LogState
from cute_logger.storage.wal_frame import FrameEncoder
from cute_logger.storage.wal_segment import SegmentWriter
from support.mutations.files import state_of
from support.mutations.registry import mutation

STALE_LEADERS = Mode(
    "stale leaders",
    {"pause": 3, "isolate": 2, "one_way": 1, "transfer": 1},
    fault_every_s=0.6,
    readers=8,
    varies=False,
)
ALONE = Mode(
    "alone", {"power": 3, "kill": 1, "slow_disk": 1}, nodes=1, duration_s=10.0, varies=False
)
SLOW_DISKS = Mode(
    "slow disks",
    {"slow_disk": 3, "power_leader": 2, "transfer": 1},
    fault_every_s=0.7,
    duration_s=15.0,
    durability_share=0.3,
    varies=False,
)

# ---- promises before they are durable


@mutation("followers acknowledge before their fsync", "Gate.post", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def post(self: Gate, peer: str, message: Message) -> bool:
        self._emit(peer, message)
        return True

    patch.setattr(Gate, "post", post)


@mutation("the leader counts itself before its fsync", "RaftJournal.durable_index", SLOW_DISKS)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "durable_index", property(lambda self: self.wal.last_index))


@mutation("apply passes the durable index", "RaftCore.__applyLogEntries", ALONE)
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._SyncObj__applyLogEntries

    def apply(self: RaftCore) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(RaftJournal, "durable_index", property(lambda self: self.wal.last_index))
            return bool(original(self))

    patch.setattr(RaftCore, "_SyncObj__applyLogEntries", apply)


@mutation("the write-ahead log is not fsynced", "SegmentWriter.write", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def write(self: SegmentWriter, encoder: FrameEncoder) -> None:
        self._file.write_at(self.position, encoder.buffers())
        self.position = encoder.position

    patch.setattr(SegmentWriter, "write", write)


@mutation("the term is not written down", "RaftJournal.setCurrentTerm", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "setCurrentTerm", lambda self, term, vote: None)


# ---- the log


@mutation("the commit index moves beyond what was verified", "RaftCore._on_append", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append

    def on_append(self: RaftCore, node: object, message: AppendEntries) -> None:
        original(self, node, message)
        if message.term >= self._term:
            self._commit = max(self._commit, min(message.commit_index, self.journal.last_index))

    _handle(patch, AppendEntries, on_append)


@mutation("the entry before is not compared", "RaftCore._on_append", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append

    def on_append(self: RaftCore, node: object, message: AppendEntries) -> None:
        if self.journal.base_index <= message.prev_index <= self.journal.last_index:
            term = self.journal.term_at(message.prev_index)
            message = AppendEntries(
                message.term,
                message.sequence,
                message.commit_index,
                message.prev_index,
                term,
                message.entries,
            )
        original(self, node, message)

    _handle(patch, AppendEntries, on_append)


@mutation("a follower acknowledges its whole log", "RaftCore._reply", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._reply

    def reply(
        self: RaftCore, node: Any, message: AppendEntries, next_index: int, *, success: bool
    ) -> None:
        if success:
            next_index = self.journal.last_index + 1
        original(self, node, message, next_index, success=success)

    patch.setattr(RaftCore, "_reply", reply)


@mutation(
    "votes go to whoever asks first, whatever its log", "RaftCore._on_pre_vote_request", "crashes"
)
def _(patch: pytest.MonkeyPatch) -> None:
    def on_pre_vote_request(self: RaftCore, node: Any, request: PreVoteRequest) -> None:
        granted = request.term >= self._term and not self._leader_is_fresh()
        self.gate.post(node.id, PreVoteReply(self._term, request.round, granted))

    _handle(patch, PreVoteRequest, on_pre_vote_request)
    patch.setattr(RaftCore, "_SyncObj__getCurrentLogTerm", lambda self: 0)
    patch.setattr(RaftCore, "_SyncObj__getCurrentLogIndex", _index_zero_for_votes)


# ---- the state


@mutation("keys are not in the checkpoint", "KeyTable.dump", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeyTable, "dump", lambda self: [])


@mutation("producers are not in the checkpoint", "ProducerTable.dump", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProducerTable, "dump", lambda self: [])


@mutation("the checkpoint vouches for bytes that were not synced", "StreamFiles.sync", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def sync(self: StreamFiles) -> dict[int, LogState]:
        return {stream_id: state_of(log) for stream_id, log in self._logs.items()}

    patch.setattr(StreamFiles, "sync", sync)


@mutation("replay begins an entry too early", "snapshot.restore", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = snapshot.restore

    def restore(sections: list[bytes], machine: StateMachine) -> dict[int, LogState]:
        states = original(sections, machine)
        machine.applied_index -= 1
        return states

    patch.setattr(snapshot, "restore", restore)


@mutation("conditions are judged before repeats", "StateMachine._append", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = StateMachine._append

    def append(self: StateMachine, command: AppendBatch, index: int, term: int) -> Any:
        stream = self.streams.get(command.stream)
        if stream and command.if_offset not in (None, stream.next_offset):
            return ConditionFailed("judged too early", actual=stream.next_offset)
        return original(self, command, index, term)

    patch.setitem(StateMachine._HANDLERS, AppendBatch, append)


# ---- what clients are told


@mutation("an unknown outcome is called a refusal", "coalescer.Entry.unknown", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProposedEntry, "unknown", lambda self: self._fail(NoLeader("not written")))


@mutation("ReadIndex does not ask the others", "ReadGate.add", STALE_LEADERS)
def _(patch: pytest.MonkeyPatch) -> None:
    def add(self: ReadGate, index: int, sequence: int, answer: Callable[[int], None]) -> None:
        answer(index)

    patch.setattr(ReadGate, "add", add)


@mutation("a node says at once that it has caught up", "RaftCore.synced", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    always = property(lambda self: True, lambda self, value: None)
    patch.setattr(RaftCore, "synced", always, raising=False)


@mutation("the engine goes on after a failed fsync", "Engine._flushed", "evil")
def _(patch: pytest.MonkeyPatch) -> None:
    original = Engine._flushed

    def flushed(self: Engine, flush: Any, done: Any) -> None:
        with suppress(OSError):
            original(self, flush, done)

    patch.setattr(Engine, "_flushed", flushed)


def _handle(patch: pytest.MonkeyPatch, kind: type, handler: Callable[..., None]) -> None:
    patch.setitem(RaftCore._HANDLERS, kind, handler)


def _index_zero_for_votes(self: RaftCore) -> int:
    """Stock code asks for the last index to compare logs only while it does not lead."""
    return self.journal.last_index if self.is_leader() else 0
