"""Drives one node: core, journal, state machine and files, without knowing asyncio.

One turn of the event loop is one turn here, however many messages and requests it brought:

    waiting commands → one entry → core tick: send, count, apply
                                     ├→ one fsync of all that was written
                                     ├→ applied batches to the streams' files
                                     └→ cold reads somebody waits for

An fsync under way is the pause in which the next entry fills. When it ends the core counts it, the
gate opens up to there, and the next turn begins. Anything unexpected in here is fatal to the node:
`on_failure` is told once and nothing runs after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from ..storage import checkpoint
from ..storage.batch import Batch
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from ..storage.log import LogConfig
from ..storage.wal import Entry, Flush
from . import upstream
from .barrier import ReadBarrier
from .coalescer import Coalescer, Pending
from .commands import InitCluster
from .config import Limits
from .errors import NoLeader
from .gate import Gate
from .journal import RaftJournal
from .machine import StateMachine, Stream
from .messages import Message, ReadIndexReply, ReadIndexRequest
from .raft import RaftCore
from .runtime import Lane, Runtime
from .snapshot import Snapshot
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOAD_BYTES = 1 << 20


class Engine:
    def __init__(
        self,
        *,
        runtime: Runtime,
        core: RaftCore,
        gate: Gate,
        journal: RaftJournal,
        machine: StateMachine,
        stream_files: StreamFiles,
        folder: DataFolder,
        files: FileSystem,
        limits: Limits,
        on_failure: Callable[[BaseException], None],
        on_applied: Callable[[], None],
        on_written: Callable[[dict[int, int]], None],
    ) -> None:
        self.runtime = runtime
        self.core = core
        self.machine = machine
        self.coalescer = Coalescer(limits.entry_bytes)
        self.stopped = False
        self._gate = gate
        self._barrier = ReadBarrier(core, gate)
        self._journal = journal
        self._stream_files = stream_files
        self._folder = folder
        self._files = files
        self._limits = limits
        self._on_failure = on_failure
        self._on_applied = on_applied
        self._on_written = on_written
        self._scheduled = False
        self._armed_for = float("inf")
        self._flushing = False
        self._writing = False
        self._loading: set[int] = set()
        self._checkpointing = False
        self._checkpoint_at = upstream.now() + limits.checkpoint_s
        self._checkpoint_index = machine.applied_index
        self._announced_index = machine.applied_index
        self._init_proposed_term = 0

    # ---- entry points: each may be called at any time on the loop

    def start(self) -> None:
        self.pump()

    def stop(self) -> None:
        """Nothing happens any more; jobs under way end unheard."""
        self.stopped = True

    def submit(self, pending: Pending) -> None:
        """Queue a command; the caller checked the bounds."""
        self.coalescer.add(pending)
        self.pump()

    def receive(self, peer: str, message: Message) -> None:
        if isinstance(message, ReadIndexRequest):
            self._guard(self._barrier.on_request, peer, message)
        elif isinstance(message, ReadIndexReply):
            self._guard(self._barrier.on_reply, message)
        else:
            self._guard(self.core.receive, peer, message)

    def connected(self, peer: str) -> None:
        self._guard(self.core.connected, peer)

    def disconnected(self, peer: str) -> None:
        self._guard(self.core.disconnected, peer)

    def still_receiving(self, peer: str) -> None:
        self._guard(self.core.still_receiving, peer)

    def read_barrier(self, answer: Callable[[int | None], None]) -> None:
        """Answer with an index that covers all that was acknowledged so far; None: nobody leads."""
        self._guard(self._barrier.ask, answer)

    def hand_over(self, peer: str | None) -> bool:
        accepted = self.core.hand_over(peer)
        self.pump()
        return accepted

    def waiting_bytes(self) -> int:
        """Bytes of commands that are queued or uncommitted."""
        return self.coalescer.bytes + self.core.uncommitted_bytes()

    def pump(self) -> None:
        """Have a turn soon; many calls make one turn."""
        if not self._scheduled and not self.stopped:
            self._scheduled = True
            self.runtime.call_soon(self._turn_guarded)

    # ---- the turn

    def _guard(self, step: Callable[..., Any], *args: Any) -> None:
        if self.stopped:
            return
        try:
            step(*args)
        except BaseException as error:
            self._fail(error)
        else:
            self.pump()

    def _fail(self, error: BaseException) -> None:
        if not self.stopped:
            self.stopped = True
            logger.critical("the node must stop", extra={"error": repr(error)}, exc_info=error)
            self._on_failure(error)

    def _turn_guarded(self) -> None:
        self._scheduled = False
        if self.stopped:
            return
        try:
            self._turn()
        except BaseException as error:
            self._fail(error)

    def _turn(self) -> None:
        self._propose()
        self._barrier.poll()
        self.core.doTick(0.0)
        self._flush()
        self._load()
        self._write_behind()
        self._maybe_checkpoint()
        if self.machine.applied_index != self._announced_index:
            self._announced_index = self.machine.applied_index
            self._on_applied()
            self.machine.changed.clear()
        if self.core.backlog:
            self.pump()
        self._arm()

    def _arm(self) -> None:
        """Have a turn when the core wants one, if no timer is set for before that."""
        wake = self.core.next_wake()
        if wake < self._armed_for:
            self._armed_for = wake
            self.runtime.call_at(wake, partial(self._timer, wake))

    def _timer(self, wake: float) -> None:
        if wake == self._armed_for:
            self._armed_for = float("inf")
            self._turn_guarded()

    def _propose(self) -> None:
        if not self.core.is_leader():
            if self.coalescer:
                self.coalescer.refuse_all()
            return
        self._propose_init()
        while self.coalescer and (not self._flushing or self.coalescer.full):
            taken = self.coalescer.take()
            if taken is None:
                return
            payload, entry = taken
            if self.core.propose(payload, entry) is None:
                entry.refused(NoLeader("leadership is being handed over"))

    def _propose_init(self) -> None:
        """The first leader of a new cluster gives it its id."""
        term = self.core.term()
        if self.machine.cluster_id is None and self._init_proposed_term != term:
            self._init_proposed_term = term
            command = InitCluster(self.runtime.token(), self.runtime.wall_ms())
            self.coalescer.add(Pending(command, 0, lambda outcome: None))

    # ---- the write-ahead log

    def _flush(self) -> None:
        if self._flushing:
            return
        flush = self._journal.wal.begin_flush()
        if flush is not None:
            self._flushing = True
            self.runtime.run(Lane.WAL, flush.run, partial(self._flushed, flush))

    def _flushed(self, flush: Flush, done: Future[None]) -> None:
        self._flushing = False
        self._guard(self._count_flush, flush, done)

    def _count_flush(self, flush: Flush, done: Future[None]) -> None:
        done.result()
        self._journal.wal.end_flush(flush)
        self.core.on_durable()
        self._gate.release()

    def _load(self) -> None:
        """Fetch entries that are no longer in memory, for a lagging follower or for apply after a
        start.
        """
        wanted, self._journal.wanted = self._journal.wanted, set()
        for start in wanted - self._loading:
            self._loading.add(start)
            job = self._journal.wal.load(start, LOAD_BYTES)
            generation = self._journal.generation
            self.runtime.run(Lane.STREAMS, job, partial(self._loaded, start, generation))

    def _loaded(self, start: int, generation: int, done: Future[list[Entry]]) -> None:
        self._loading.discard(start)
        self._guard(self._supply, start, generation, done)

    def _supply(self, start: int, generation: int, done: Future[list[Entry]]) -> None:
        self._journal.supply(start, done.result(), generation)
        self.core.entries_loaded()

    # ---- the streams' files

    def _write_behind(self) -> None:
        """Hand applied batches to the streams lane; one job at a time, so that a busy node writes
        large pieces.
        """
        if not self._writing and (self.machine.unwritten or self.machine.created):
            self._write_now()

    def _write_now(self) -> None:
        self._writing = True
        created, self.machine.created = self.machine.created, []
        batches = self.machine.take_unwritten()
        job = partial(self._write, created, batches)
        self.runtime.run(Lane.STREAMS, job, partial(self._written, batches))

    def _write(self, created: list[Stream], batches: dict[int, list[Batch]]) -> dict[int, int]:
        for stream in created:
            self._stream_files.create(stream.id, log_config(stream))
        return self._stream_files.write(batches)

    def _written(self, batches: dict[int, list[Batch]], done: Future[dict[int, int]]) -> None:
        self._writing = False
        self._guard(self._count_written, batches, done)

    def _count_written(self, batches: dict[int, list[Batch]], done: Future[dict[int, int]]) -> None:
        self._on_written(done.result())
        self.machine.written(batches)

    # ---- checkpoints

    def _maybe_checkpoint(self) -> None:
        applied = self.core.applied_index() - self._checkpoint_index
        if self._checkpointing or applied == 0:
            return
        large = self._bytes_since_checkpoint() >= self._limits.checkpoint_bytes
        if large or upstream.now() >= self._checkpoint_at:
            self.checkpoint(lambda: None)

    def _bytes_since_checkpoint(self) -> int:
        return self._journal.bytes_between(self._checkpoint_index, self.core.applied_index())

    def checkpoint(self, done: Callable[[], None]) -> None:
        """Make the state as of now durable, so that the log before it is not needed to recover.

        The jobs of a lane run in order: what is written before this job is exactly what was
        applied.
        """
        self._checkpointing = True
        self._write_now()
        snapshot = Snapshot(self.machine)
        deleted, self.machine.deleted = self.machine.deleted, []
        job = partial(self._save, snapshot, deleted)
        self.runtime.run(Lane.STREAMS, job, partial(self._saved, snapshot, done))

    def _save(self, snapshot: Snapshot, deleted: list[int]) -> None:
        states = self._stream_files.sync()
        checkpoint.save(self._files, self._folder.path, snapshot.sections(states))
        self._stream_files.remove(deleted)

    def _saved(self, snapshot: Snapshot, then: Callable[[], None], done: Future[None]) -> None:
        self._guard(self._count_saved, snapshot, then, done)

    def _count_saved(
        self, snapshot: Snapshot, then: Callable[[], None], done: Future[None]
    ) -> None:
        done.result()
        self._checkpointing = False
        self._checkpoint_index = snapshot.meta.applied_index
        self._checkpoint_at = upstream.now() + self._limits.checkpoint_s
        then()


def log_config(stream: Stream) -> LogConfig:
    """The part of a stream's settings that its files obey."""
    default = LogConfig()
    return LogConfig(int(stream.config.get("segment.bytes", default.segment_bytes_max)))
