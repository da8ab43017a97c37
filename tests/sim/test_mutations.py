"""The simulator notices when a rule that keeps promises is broken.

Every test breaks one on purpose, and says how many seeds of which mode may pass before the
simulator has to see it. What chance finds too rarely is in test_rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from crc32c import crc32c

from cute_logger.replication import raft, recovery, snapshot
from cute_logger.replication.coalescer import Entry as ProposedEntry
from cute_logger.replication.commands import AppendBatch
from cute_logger.replication.dedupe import KeyTable, ProducerTable
from cute_logger.replication.engine import Engine
from cute_logger.replication.errors import ConditionFailed, NoLeader
from cute_logger.replication.gate import Gate
from cute_logger.replication.journal import RaftJournal
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.members import Config, Members
from cute_logger.replication.messages import (
    AppendEntries,
    Message,
    PreVoteReply,
    PreVoteRequest,
)
from cute_logger.replication.raft import RaftCore
from cute_logger.replication.read_gate import ReadGate
from cute_logger.replication.scrub import Scrub
from cute_logger.replication.sim.modes import Mode
from cute_logger.replication.sim.runner import simulate
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.storage import store
from cute_logger.storage.batch import Batch, batch_size, parse_batch
from cute_logger.storage.log import Log, LogState
from cute_logger.storage.wal_frame import FrameEncoder
from cute_logger.storage.wal_segment import SegmentWriter

ALONE = Mode("alone", {"power": 3, "kill": 1, "slow_disk": 1}, nodes=1, duration_s=10.0)
SLOW_DISKS = Mode(
    "slow disks",
    {"slow_disk": 3, "power_leader": 2, "transfer": 1},
    fault_every_s=0.7,
    duration_s=15.0,
    durability_share=0.3,
)

Break = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutation:
    break_it: Break
    mode: str | Mode
    seeds: int
    """It must be noticed within so many."""


MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str, mode: str | Mode, *, seeds: int = 10) -> Callable[[Break], Break]:
    def register(break_it: Break) -> Break:
        MUTATIONS[name] = Mutation(break_it, mode, seeds)
        return break_it

    return register


# ---- promises before they are durable


@mutation("followers acknowledge before their fsync", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def post(self: Gate, peer: str, message: Message) -> None:
        self._emit(peer, message)

    patch.setattr(Gate, "post", post)


@mutation("the leader counts itself before its fsync", SLOW_DISKS)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "durable_index", property(lambda self: self.wal.last_index))


@mutation("apply passes the durable index", ALONE)
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._SyncObj__applyLogEntries

    def apply(self: RaftCore) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(RaftJournal, "durable_index", property(lambda self: self.wal.last_index))
            return bool(original(self))

    patch.setattr(RaftCore, "_SyncObj__applyLogEntries", apply)


@mutation("the write-ahead log is not fsynced", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def write(self: SegmentWriter, encoder: FrameEncoder) -> None:
        self._file.write_at(self.position, encoder.buffers())
        self.position = encoder.position

    patch.setattr(SegmentWriter, "write", write)


@mutation("the term is not written down", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftJournal, "setCurrentTerm", lambda self, term, vote: None)


# ---- the log


@mutation("the commit index moves beyond what was verified", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._on_append

    def on_append(self: RaftCore, node: object, message: AppendEntries) -> None:
        original(self, node, message)
        if message.term >= self._term:
            self._commit = max(self._commit, min(message.commit_index, self.journal.last_index))

    _handle(patch, AppendEntries, on_append)


@mutation("the entry before is not compared", "network")
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


@mutation("a follower acknowledges its whole log", "network")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._reply

    def reply(
        self: RaftCore, node: Any, message: AppendEntries, next_index: int, *, success: bool
    ) -> None:
        if success:
            next_index = self.journal.last_index + 1
        original(self, node, message, next_index, success=success)

    patch.setattr(RaftCore, "_reply", reply)


@mutation("votes go to whoever asks first, whatever its log", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    def on_pre_vote_request(self: RaftCore, node: Any, request: PreVoteRequest) -> None:
        granted = request.term >= self._term and not self._leader_is_fresh()
        self.gate.post(node.id, PreVoteReply(self._term, request.round, granted))

    _handle(patch, PreVoteRequest, on_pre_vote_request)
    patch.setattr(RaftCore, "_SyncObj__getCurrentLogTerm", lambda self: 0)
    patch.setattr(RaftCore, "_SyncObj__getCurrentLogIndex", _index_zero_for_votes)


# ---- the state


@mutation("keys are not in the checkpoint", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeyTable, "dump", lambda self: [])


@mutation("producers are not in the checkpoint", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProducerTable, "dump", lambda self: [])


@mutation("the checkpoint vouches for bytes that were not synced", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    def sync(self: StreamFiles) -> dict[int, LogState]:
        return {stream_id: _state_of(log) for stream_id, log in self._logs.items()}

    patch.setattr(StreamFiles, "sync", sync)


@mutation("replay begins an entry too early", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = snapshot.restore

    def restore(sections: list[bytes], machine: StateMachine) -> dict[int, LogState]:
        states = original(sections, machine)
        machine.applied_index -= 1
        return states

    patch.setattr(snapshot, "restore", restore)


@mutation("conditions are judged before repeats", "crashes", seeds=20)
def _(patch: pytest.MonkeyPatch) -> None:
    original = StateMachine._append

    def append(self: StateMachine, command: AppendBatch, index: int, term: int) -> Any:
        stream = self.streams.get(command.stream)
        if stream and command.if_offset not in (None, stream.next_offset):
            return ConditionFailed("judged too early", actual=stream.next_offset)
        return original(self, command, index, term)

    patch.setitem(StateMachine._HANDLERS, AppendBatch, append)


# ---- damage


@mutation("nobody helps with damaged bytes", "rot", seeds=3)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamFiles, "copy", lambda self, stream_id, offset, bytes_max: None)


@mutation("damage that nobody reads is not looked for", "rot", seeds=3)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scrub, "poll", lambda self, now: None)


@mutation("checksums are not checked", "rot", seeds=3)
def _(patch: pytest.MonkeyPatch) -> None:
    def parse(buffer: memoryview, position: int = 0) -> Batch:
        data = bytearray(buffer[position : position + batch_size(buffer, position)])
        data[:4] = crc32c(bytes(data[4:])).to_bytes(4, "little")
        return parse_batch(data)

    patch.setattr(store, "parse_batch", parse)


# ---- members


@mutation("two changes of members at once", "members", seeds=40)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "may_change_members", lambda self: self.is_leader())
    patch.setattr(raft, "is_one_step", lambda old, new: True)


@mutation("the members in the log are not read at the start", "members", seeds=40)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "MEMBERS", b"never")


@mutation("a learner counts", "members", seeds=40)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Config, "voters", _everybody)


@mutation("an empty disk votes under its old id", "members", seeds=40)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "may_vote", lambda self, addressed: True)


# ---- what clients are told


@mutation("an unknown outcome is called a refusal", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProposedEntry, "unknown", lambda self: self._fail(NoLeader("not written")))


@mutation("ReadIndex does not ask the others", "network", seeds=30)
def _(patch: pytest.MonkeyPatch) -> None:
    def add(self: ReadGate, index: int, sequence: int, answer: Callable[[int], None]) -> None:
        answer(index)

    patch.setattr(ReadGate, "add", add)


@mutation("ReadIndex does not wait for the term's first entry", "evil", seeds=60)
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore.read_index

    def read_index(self: RaftCore, answer: Callable[[int | None], None]) -> None:
        noop, self._noop_index = self._noop_index, 0 if self.is_leader() else None
        original(self, answer)
        self._noop_index = noop

    patch.setattr(RaftCore, "read_index", read_index)


@mutation("a node says at once that it has caught up", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    always = property(lambda self: True, lambda self, value: None)
    patch.setattr(RaftCore, "synced", always, raising=False)


@mutation("the engine goes on after a failed fsync", "evil", seeds=20)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Engine._flushed

    def flushed(self: Engine, flush: Any, done: Any) -> None:
        with suppress(OSError):
            original(self, flush, done)

    patch.setattr(Engine, "_flushed", flushed)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_simulator_notices_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = MUTATIONS[name]
    chosen.break_it(monkeypatch)
    assert any(_kinds(chosen)), f"{chosen.seeds} seeds of {chosen.mode} passed"


def _kinds(chosen: Mutation) -> Iterator[str]:
    for seed in range(chosen.seeds):
        for violation in simulate(chosen.mode, seed).violations[:1]:
            yield violation.kind


def _handle(patch: pytest.MonkeyPatch, kind: type, handler: Callable[..., None]) -> None:
    patch.setitem(RaftCore._HANDLERS, kind, handler)


def _index_zero_for_votes(self: RaftCore) -> int:
    """Stock code asks for the last index to compare logs only while it does not lead."""
    return self.journal.last_index if self.is_leader() else 0


def _everybody(self: Config) -> dict[str, str | None]:
    return {member.id: member.incarnation for member in self.members}


def _state_of(log: Log) -> LogState:
    extents = log._sealed.extents()
    if log._active is not None:
        extents.append((log._active.base_offset, log._active.size))
    return LogState(log.log_start_offset, log.log_end_offset, tuple(extents))
