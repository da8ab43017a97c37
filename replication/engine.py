"""Drives one node: core, journal, state machine and files, without knowing asyncio.

One turn of the event loop is one turn here, however many messages and requests it brought:

    waiting commands → one entry ──→ one fsync of all that was written
                                     ├→ core tick: send, count, apply
                                     ├→ cold reads somebody waits for
                                     └→ now and then: files, snapshots, repairs, compaction, indexes

An fsync under way is the pause in which the next entry fills. When it ends the core counts it, the
gate opens up to there, and the next turn begins. A turn costs as much as a small append, so there
is none for what changes nothing: a reply to what is committed already, a piece of a message.
Anything unexpected in here is fatal to the node: `on_failure` is told once and nothing runs after
it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..storage.errors import Damaged
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from ..storage.wal import Entry, Flush
from . import retention, upstream
from .barrier import ReadBarrier
from .capacity import Capacity
from .checkpoint_scrub import CheckpointScrub
from .coalescer import Coalescer, Pending, Settle
from .commands import Command, InitCluster
from .compactor import Compactor
from .config import Limits
from .errors import NoLeader
from .exchange import SnapshotExchange
from .gate import Gate
from .index_files import IndexFiles
from .indexer import Indexer
from .jobs import Jobs
from .journal import RaftJournal
from .machine import StateMachine
from .measures import Measures
from .members import Config
from .messages import (
    Message,
    ReadIndexReply,
    ReadIndexRequest,
    RepairData,
    RepairRead,
    SnapshotData,
    SnapshotRead,
)
from .persistence import Persistence
from .raft import RaftCore
from .repair import Repairs
from .runtime import Lane, Runtime
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

LOAD_BYTES = 1 << 20
BACKGROUND_S = 0.005
"""What nobody waits for is looked at so often, and whenever something of it has ended."""
VOUCH_S = 0.05
"""With nothing more to write for so long, the log's end is called durable in the log itself."""
RELIEVE_S = 3.0
"""A leader whose disk alone is short for so long gives way; by then the others would have said if
theirs are too."""


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
        index_files: IndexFiles,
        folder: DataFolder,
        files: FileSystem,
        limits: Limits,
        measures: Measures,
        on_failure: Callable[[BaseException], None],
        on_applied: Callable[[], None],
        on_members: Callable[[], None],
        on_outdated: Callable[[], None],
    ) -> None:
        """`on_members`: the log names others now. `on_outdated`: the folder holds something else
        than this engine knows of, a snapshot or damage; the host stops it and recovers anew.
        """
        self.core = core
        self.machine = machine
        self.coalescer = Coalescer(limits.entry_bytes)
        self.stopped = False
        self._runtime = runtime
        self._gate = gate
        self._journal = journal
        self._limits = limits
        self._measures = measures
        self._on_failure = on_failure
        self._on_applied = on_applied
        self._on_members = on_members
        self._on_outdated = on_outdated
        self._jobs = Jobs(runtime, self._guard_background)
        self._background_at = float("-inf")
        self._barrier = ReadBarrier(core, gate, runtime.token())
        self.capacity = Capacity(files, folder.path, limits.disk_reserve_bytes, self._jobs)
        self._relieve_at = 0.0
        self.persistence = Persistence(
            jobs=self._jobs,
            machine=machine,
            journal=journal,
            stream_files=stream_files,
            folder=folder,
            files=files,
            limits=limits,
            measures=measures,
        )
        self.repairs = Repairs(
            jobs=self._jobs,
            core=core,
            machine=machine,
            stream_files=stream_files,
            limits=limits,
            measures=measures,
            post=gate.post,
            wake=self._wake_background,
            checkpoint_scrub=CheckpointScrub(files, folder.path, measures, self.persistence.renew),
        )
        self.compactor = Compactor(
            jobs=self._jobs,
            core=core,
            machine=machine,
            stream_files=stream_files,
            limits=limits,
            measures=measures,
            repairs=self.repairs,
            post=gate.post,
            propose=self._propose_later,
            wall_ms=runtime.wall_ms,
            wake=self._wake_background,
        )
        self.indexer = Indexer(
            jobs=self._jobs,
            machine=machine,
            stream_files=stream_files,
            files=index_files,
            measures=measures,
            damages=self.repairs,
            is_short=self.capacity.is_short,
        )
        self.snapshots = SnapshotExchange(
            jobs=self._jobs,
            core=core,
            gate=gate,
            stream_files=stream_files,
            folder=folder,
            files=files,
            on_fetched=on_outdated,
            on_damaged=self.persistence.renew,
            on_rotten=self.repairs.report,
            bytes_per_s=limits.catchup_bytes_per_s,
        )
        self._announced_members = core.members.changes
        self._announced_index = machine.applied_index
        self._scheduled = False
        self._armed_for = float("inf")
        self._flushing = False
        self._vouch_at = float("inf")
        self._vouched_lsn = 0
        self._loading: set[int] = set()
        self._init_proposed_term = 0
        self._retention_at = upstream.now() + limits.retention_period_s

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
        elif isinstance(message, SnapshotRead):
            self._guard_background(self.snapshots.on_read, peer, message)
        elif isinstance(message, SnapshotData):
            self._guard_background(self.snapshots.on_data, peer, message)
        elif isinstance(message, RepairRead):
            self._guard_background(self.repairs.on_read, peer, message)
        elif isinstance(message, RepairData):
            self._guard_background(self._on_copy, peer, message)
        else:
            self._guard(self.core.receive, peer, message)

    def _on_copy(self, peer: str, message: RepairData) -> None:
        if not self.compactor.on_data(peer, message):
            self.repairs.on_data(peer, message)

    def introduced(self, peer: str, incarnation: str) -> None:
        self._guard(self.core.introduced, peer, incarnation)

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

    def change_members(self, config: Config) -> None:
        """On the leader. Raises MembershipConflict."""
        self.core.change_members(config)
        self.pump()

    def waiting_bytes(self) -> int:
        """Bytes of commands that are queued or uncommitted."""
        return self.coalescer.bytes + self.core.uncommitted_bytes()

    def pump(self) -> None:
        """Have a turn soon; many calls make one turn."""
        if not self._scheduled and not self.stopped:
            self._scheduled = True
            self._runtime.call_soon(self._turn_guarded)

    # ---- the turn

    def _guard(self, step: Callable[..., Any], *args: Any) -> None:
        """Take one step. A turn follows, unless it returns False."""
        if self.stopped:
            return
        try:
            is_turn_due = step(*args) is not False
        except BaseException as error:
            self._fail(error)
        else:
            if is_turn_due:
                self.pump()

    def _guard_background(self, step: Callable[..., None], *args: Any) -> None:
        self._background_at = float("-inf")
        self._guard(step, *args)

    def _wake_background(self) -> None:
        self._background_at = float("-inf")
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
        # Before anything is sent: whoever hears of it wakes up, and may take the processor.
        self._flush()
        self._barrier.poll()
        self.core.doTick(0.0)
        now = upstream.now()
        self._vouch(now)
        self._flush()
        self._load()
        if now >= min(self._background_at, self.persistence.write_at):
            self._background_at = now + BACKGROUND_S
            self._poll_background(now)
        if self.core.members.changes != self._announced_members:
            self._announced_members = self.core.members.changes
            self._on_members()
        if self.machine.applied_index != self._announced_index:
            self._announced_index = self.machine.applied_index
            self._on_applied()
            self.machine.changed.clear()
            if self.coalescer:
                self.pump()  # somebody may have waited for just that
        if self.core.backlog:
            self.pump()
        self._arm()

    def _poll_background(self, now: float) -> None:
        core, snapshots = self.core, self.snapshots
        self._watch_disk(now)
        snapshots.poll()
        self.repairs.poll()
        self.compactor.poll(
            now,
            is_serving=snapshots.pinned_index is not None,
            is_fetching=snapshots.fetching_index is not None,
        )
        self.indexer.poll(now, is_synced=core.synced)
        self.persistence.poll(snapshots.pinned_index, is_synced=core.synced)

    def _arm(self) -> None:
        """Have a turn when the core wants one, if no timer is set for before that."""
        wake = min(self.core.next_wake(), self.persistence.write_at)
        if not self._flushing:
            wake = min(wake, self._vouch_at)
        if wake < self._armed_for:
            self._armed_for = wake
            self._runtime.call_at(wake, partial(self._timer, wake))

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
        self._propose_trims()
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
            command = InitCluster(self._runtime.token(), self._runtime.wall_ms())
            self.coalescer.add(Pending(command, 0, lambda outcome: None))

    def _propose_trims(self) -> None:
        """Let go what no stream has to keep, judged by a state that lacks nothing committed before
        this leader.
        """
        now = upstream.now()
        if now < self._retention_at or self.machine.applied_term != self.core.term():
            return
        self._retention_at = now + self._limits.retention_period_s
        streams = self.machine.streams.values()
        for trim in retention.due_trims(streams, self._runtime.wall_ms()):
            self.coalescer.add(Pending(trim, 0, lambda outcome: None))

    def _propose_later(self, command: Command, size: int, settle: Settle) -> None:
        """A command of this node's own."""
        self.coalescer.add(Pending(command, size, settle))
        self.pump()

    # ---- the write-ahead log

    def _flush(self) -> None:
        if self._flushing:
            return
        flush = self._journal.wal.begin_flush()
        if flush is not None:
            self._flushing = True
            self.capacity.spend(flush.size_bytes)
            flushed = partial(self._guard, self._flushed, flush)
            self._runtime.run(Lane.WAL, flush.run, flushed)

    def _vouch(self, now: float) -> None:
        """A log that rests says that its end is durable: see `Wal.vouch`."""
        if not self._flushing and now >= self._vouch_at:
            self._vouch_at = float("inf")
            self._journal.wal.vouch()
            self._vouched_lsn = self._journal.position

    def _flushed(self, flush: Flush, done: Future[None]) -> bool:
        """Count what is durable now. False: nothing waited for it but what the gate held."""
        self._flushing = False
        done.result()
        if flush.lsn > self._vouched_lsn:
            self._vouch_at = upstream.now() + VOUCH_S
        self._journal.wal.end_flush(flush)
        self._measures.flushes.add(flush.write_s)
        self._measures.flushed_bytes += flush.size_bytes
        self.core.on_durable()
        self._gate.release()
        self._arm()
        return bool(self.coalescer) or self._journal.wal.has_changes or self.core.has_work()

    def _load(self) -> None:
        """Fetch entries that are no longer in memory, for a lagging follower or for apply after a
        start.
        """
        wanted, self._journal.wanted = self._journal.wanted, set()
        for start in wanted - self._loading:
            if start <= self._journal.base_index:
                continue
            self._loading.add(start)
            job = self._journal.wal.load(start, LOAD_BYTES)
            generation = self._journal.generation
            self._jobs.run(Lane.STREAMS, job, partial(self._loaded, start, generation))

    def _loaded(self, start: int, generation: int, done: Future[list[Entry]]) -> None:
        self._loading.discard(start)
        try:
            entries = done.result()
        except Damaged as damage:
            self._log_is_damaged(start, damage)
        else:
            self._journal.supply(start, entries, generation)
            self.core.entries_loaded()

    def _log_is_damaged(self, start: int, damage: Damaged) -> None:
        logger.error("the write-ahead log is damaged", extra={"reason": str(damage)})
        if start <= self.core.applied_index():
            self.persistence.skip_damaged_log(start)
        else:
            # Needed here and to be had elsewhere only: recovery sets it aside.
            self._on_outdated()

    # ---- the disk's room

    def has_room(self) -> bool:
        """May appends be taken?"""
        return self.core.majority_has_room() and not self.capacity.is_short(self.waiting_bytes())

    def _watch_disk(self, now: float) -> None:
        """Tell the core how much room there is; a leader whose disk alone is short gives way."""
        core = self.core
        self.capacity.poll()
        core.disk_is_short = self.capacity.is_short()
        core.disk_is_full = self.capacity.is_full()
        alone = core.is_leader() and core.disk_is_short and core.majority_has_room()
        if not alone:
            self._relieve_at = now + RELIEVE_S
        elif now >= self._relieve_at:
            self._relieve_at = now + RELIEVE_S
            heir = core.roomy_follower()
            if heir is not None:
                logger.warning("the disk is short, gives way", extra={"to": heir})
                core.hand_over(heir)
