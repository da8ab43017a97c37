"""One machine: a disk, a clock, and the process that runs there, composed as `Replica` does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from ...storage.batch import Batch
from ...storage.errors import Damaged, DamagedBatch, Poisoned
from ..coalescer import Pending
from ..commands import AppendBatch, Command, Transact
from ..config import Limits, ReplicaConfig
from ..engine import Engine
from ..errors import NoLeader, NotLeader, Refused, ShuttingDown, Throttled
from ..gate import Gate
from ..guards import Guard
from ..journal import RaftJournal
from ..links import Inbox
from ..measures import Measures
from ..members import Members
from ..messages import Message
from ..raft import RaftCore
from ..recovery import Recovered, recover
from ..runtime import Lane
from .clock import NodeClock
from .disk import SimDisk, Stopped
from .modes import FOLDER_ROT
from .runtime import SimRuntime
from .scheduler import Step
from .watch import WatchedMachine
from .world import World

LIMITS = Limits(
    entry_bytes=8 << 10,
    uncommitted_bytes=128 << 10,
    unwritten_bytes=32 << 10,
    cache_bytes=16 << 10,
    wal_segment_bytes=24 << 10,
    wal_cache_bytes=8 << 10,
    wal_retain_bytes=32 << 10,
    checkpoint_bytes=24 << 10,
    checkpoint_s=2.0,
    checkpoint_after_trim_s=0.5,
    retention_period_s=1.0,
    scrub_pause_s=2.0,
    compaction_period_s=0.5,
    compaction_bytes_per_s=1 << 20,
    compaction_keys_max=5,
)
"""So small that segments roll, caches overflow and checkpoints happen every second or so."""
DATA = "/data"


@dataclass(slots=True)
class Process:
    """What one life of a node consists of."""

    recovered: Recovered
    runtime: SimRuntime
    core: RaftCore
    engine: Engine
    acked_before: int
    """Newest index acknowledged to anybody before this process started."""
    is_stopping: bool = False


class SimNode:
    def __init__(self, node_id: str, world: World, clock: NodeClock) -> None:
        self.id = node_id
        self.life = 0
        self.process: Process | None = None
        self.disks = 0
        self.incarnation = ""
        """Of its data folder."""
        self.disk: SimDisk
        self._index_folder = f"{world.scratch}/{node_id}"
        """On a real disk: no fault reaches it, but a power loss takes all of it."""
        self.new_disk(world.seed)
        self.starts_at: float | None = None
        """When it will be started again, if it is down."""
        self.wall_offset_ms = 0
        self.disk_slow_s = 0.0
        self._world = world
        self._clock = clock
        self._limits = replace(LIMITS, scrub_bytes_per_s=world.mode.scrub_bytes_per_s)
        self._paused_until = 0.0
        self._held: list[Step] = []
        """What is to be done as soon as the process runs on."""
        self._applied_waiters: list[tuple[int, Step]] = []

    # ---- the process's life

    @property
    def inbox(self) -> Inbox | None:
        return self.process.engine if self.process is not None else None

    @property
    def members(self) -> Members:
        assert self.process is not None
        return self.process.core.members

    def new_disk(self, seed: int) -> None:
        """Everything on the disk is lost; no process runs."""
        assert self.process is None
        self.disks += 1
        self.incarnation = ""
        self._lose_indexes()
        self.disk = SimDisk(Random(f"disk {self.id} {self.disks} {seed}"))

    def _lose_indexes(self) -> None:
        shutil.rmtree(self._index_folder, ignore_errors=True)

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def is_leader(self) -> bool:
        return self.process is not None and self.process.core.is_leader()

    def start(self) -> None:
        """Recover and take part; a disk that stops the process in the middle makes another start
        necessary.
        """
        if self.process is not None:
            return
        self.starts_at = None
        self.life += 1
        self._world.trace.add(f"{self.id} starts, life {self.life}")
        self.disk.is_usable = True
        previous, self._world.clock = self._world.clock, self._clock
        try:
            self.process = self._compose(recover(self._config(), self.disk))
        except Stopped:
            self._world.trace.add(f"{self.id} stopped while it recovered")
            if self._world.rng.random() < 0.5:
                self.disk.lose_power()
            else:
                self.disk.end_process()
            self.start_after(0.1)
            return
        except OSError as error:
            self._died_at_start(error)
            return
        except BaseException as error:
            self._world.checks.violate("cannot start", f"{self.id}: {error!r}")
            return
        finally:
            self._world.clock = previous
            self.disk.is_usable = False
        self.incarnation = self.process.recovered.folder.incarnation
        for _, damage in self.process.recovered.stream_files.found_damaged:
            self._check_damage(damage)
        self._world.checks.started(self)
        self._world.network.dial_all(self)
        self.enter(self.process.engine.start)

    def _check_damage(self, damage: Damaged) -> None:
        if "rot" not in self._world.mode.faults:
            self._world.checks.violate("damaged without reason", f"{self.id}: {damage}")

    def start_after(self, delay_s: float) -> None:
        self.starts_at = self._world.scheduler.now + delay_s
        self._world.scheduler.after(delay_s, self._start_if_due)

    def _start_if_due(self) -> None:
        if self.starts_at is not None and self._world.scheduler.now >= self.starts_at:
            self.start()

    def _died_at_start(self, error: OSError) -> None:
        if not self.disk.failures:
            self._world.checks.violate("cannot start", f"{self.id}: {error!r}")
        self._world.trace.add(f"{self.id} cannot start: {error!r}")
        self.disk.end_process()
        self.start_after(0.3)

    def _config(self) -> ReplicaConfig:
        peers = {peer: (peer, 0) for peer in self._world.founders if peer != self.id}
        return ReplicaConfig(
            id=self.id,
            data=DATA,
            raft_address=(self.id, 0),
            peers=peers,
            joins=self.id not in self._world.founders or self.disks > 1,
            timing=self._world.mode.timing,
            limits=self._limits,
            index_folder=self._index_folder,
        )

    def _compose(self, recovered: Recovered) -> Process:
        world = self._world
        runtime = SimRuntime(
            self,
            world.scheduler,
            self._clock,
            self.disk,
            world.rng,
            fsync_s=world.mode.fsync_s,
            wall_ms=self.wall_ms,
        )
        runtime.disk_slow_s = self.disk_slow_s
        journal = RaftJournal(recovered.wal)
        gate = Gate(journal, partial(self._emit, self.life))
        core = RaftCore(
            recovered.members,
            timing=world.mode.timing,
            journal=journal,
            gate=gate,
            machine=WatchedMachine(self.id, recovered.machine, world.checks),
        )
        engine = Engine(
            runtime=runtime,
            core=core,
            gate=gate,
            journal=journal,
            machine=recovered.machine,
            stream_files=recovered.stream_files,
            index_files=recovered.index_files,
            folder=recovered.folder,
            files=self.disk,
            limits=self._limits,
            measures=Measures(),
            on_failure=self._failed,
            on_applied=self._applied,
            on_members=partial(world.network.follow, self),
            on_outdated=partial(world.scheduler.after, 0.0, partial(self._reopen, self.life)),
        )
        return Process(recovered, runtime, core, engine, world.checks.acked_index)

    def _reopen(self, life: int) -> None:
        """A snapshot was fetched: recover from it, as after a restart."""
        if self.process is not None and self.life == life:
            world = self._world
            world.trace.add(f"{self.id} opens a snapshot")
            self._end(power=False)
            if "kill_writing" in world.mode.faults and not world.is_healing:
                # Few steps, once in a while: a stop just then has to be aimed at.
                self.disk.stop_after = world.rng.choice((None, world.rng.randint(0, 30)))
            self.start()

    def kill(self, *, power: bool) -> None:
        """End the process at once; with `power`, the machine."""
        if self.process is not None:
            self._world.trace.add(f"{self.id} {'loses power' if power else 'is killed'}")
            self._end(power=power)

    def _end(self, *, power: bool) -> None:
        if self.process is not None:
            self.process.recovered.index_files.close()
        self.process = None
        self._applied_waiters.clear()
        self._paused_until = 0.0
        self._held.clear()
        self._world.network.process_died(self, silently=power)
        if power:
            self.disk.lose_power()
            self._lose_indexes()
        else:
            self.disk.end_process()

    def stop(self) -> None:
        """End in order: hand leadership over, take a checkpoint, close."""
        process = self.process
        if process is None or process.is_stopping:
            return
        self._world.trace.add(f"{self.id} is stopped in order")
        process.is_stopping = True
        life = self.life
        self.enter(lambda: ignore(process.engine.hand_over(None)))

        def checkpoint() -> None:
            if not process.engine.stopped:
                process.engine.persistence.checkpoint(partial(self._close, process))

        self._world.scheduler.after(0.5, partial(self.enter, checkpoint, life))

    def _close(self, process: Process) -> None:
        process.engine.stop()
        self.disk.is_usable = True
        try:
            process.recovered.close()
        except Stopped:
            pass
        except OSError as error:
            if not self.disk.failures:
                self._world.checks.violate("cannot close", f"{self.id}: {error!r}")
        finally:
            self.disk.is_usable = False
        self._world.trace.add(f"{self.id} has stopped")
        self._end(power=False)
        self.start_after(0.5)

    def pause(self, duration_s: float) -> None:
        """The process stands still: nothing of it runs."""
        self._world.trace.add(f"{self.id} stands still for {duration_s:.3f} s")
        self._paused_until = max(self._paused_until, self._world.scheduler.now + duration_s)
        self._world.scheduler.at(self._paused_until, self._wake)

    def resume(self) -> None:
        self._paused_until = 0.0
        self._wake()

    def _wake(self) -> None:
        """What came meanwhile happens now, in its order."""
        if self._world.scheduler.now >= self._paused_until:
            held, self._held = self._held, []
            for step in held:
                step()

    def set_disk_slow(self, delay_s: float) -> None:
        """Every job on the disk takes this much longer from now on."""
        self.disk_slow_s = delay_s
        if self.process is not None:
            self.process.runtime.disk_slow_s = delay_s

    def wall_ms(self) -> int:
        """This machine's wall clock."""
        return self._world.wall_ms() + self.wall_offset_ms

    # ---- what the runtime asks

    def enter(self, step: Step, life: int | None = None) -> None:
        """Run `step` as the process that runs now, or as that of `life` if it is the same."""
        process, world = self.process, self._world
        if process is None or (life is not None and life != self.life):
            return
        if world.scheduler.now < self._paused_until:
            self._held.append(partial(self.enter, step, self.life))
            return
        previous, world.clock = world.clock, self._clock
        try:
            step()
            soon = process.runtime.soon
            while soon and self.process is process:
                soon.popleft()()
        finally:
            world.clock = previous
        if self.process is not None:
            world.checks.look(self)

    def stopped_writing(self) -> None:
        self._world.trace.add(f"{self.id} stopped while it wrote")
        self._end(power=self._world.rng.random() < 0.5)
        self.start_after(self._world.rng.uniform(0.05, 2.0))

    def job_failed(self, error: BaseException) -> None:
        if isinstance(error, Damaged) and FOLDER_ROT.keys() & self._world.mode.faults.keys():
            return  # a log that cannot be read is set aside
        if self.process is not None and isinstance(error, (OSError, Damaged, Poisoned)):
            self._world.checks.violate("serves after a disk error", f"{self.id}: {error!r}")

    def _failed(self, error: BaseException) -> None:
        """The engine says that the node must die."""
        is_explained = isinstance(error, (OSError, Poisoned)) and bool(self.disk.failures)
        if not is_explained:
            self._world.checks.violate("a node died", f"{self.id}: {error!r}")
        self._world.trace.add(f"{self.id} exits: {error!r}")
        self._end(power=False)
        self.start_after(self._world.rng.uniform(0.3, 2.0))

    def _emit(self, life: int, peer: str, message: Message) -> None:
        if self.process is None or life != self.life:
            self._world.checks.violate("speaks after its end", f"{self.id}: {message!r}")
        self._world.network.emit(self, peer, message)

    # ---- what the front end asks

    def submit(
        self, command: Command, settle: Callable[[Any], None], guard: Guard | None = None
    ) -> Pending | Refused:
        """Propose `command` as `Replica` does; `settle` hears of its fate."""
        process = self.process
        assert process is not None
        if process.is_stopping:
            return ShuttingDown("this node is shutting down")
        if not process.core.is_leader():
            leader = process.core.leader_id()
            return NotLeader(leader) if leader is not None else NoLeader("nobody leads right now")
        if process.engine.waiting_bytes() > LIMITS.uncommitted_bytes:
            return Throttled("too many appends wait for their majority")
        life = self.life

        def settled(outcome: Any) -> None:
            if self.process is None or life != self.life:
                self._world.checks.violate("answers after its end", f"{self.id}: {outcome!r}")
            settle(outcome)

        bodies = command.appends if isinstance(command, Transact) else [command]
        size = sum(len(each.body) for each in bodies if isinstance(each, AppendBatch))
        pending = Pending(command, size, settled, guard)
        process.engine.submit(pending)
        return pending

    def wait_applied(self, index: int, then: Step) -> None:
        assert self.process is not None
        if self.process.core.applied_index() >= index:
            then()
        else:
            self._applied_waiters.append((index, then))

    def _applied(self) -> None:
        assert self.process is not None
        applied = self.process.core.applied_index()
        due = [then for index, then in self._applied_waiters if index <= applied]
        self._applied_waiters = [each for each in self._applied_waiters if each[0] > applied]
        for then in due:
            then()

    def read(
        self, stream_id: int, offset: int, bytes_max: int, then: Callable[[list[Batch]], None]
    ) -> None:
        """Read as `LocalReads` does: from memory, or from the files on their lane; damage first has
        to be mended.
        """
        process = self.process
        assert process is not None
        recent = process.recovered.machine.recent.read(stream_id, offset, bytes_max)
        if recent is not None:
            then(recent)
            return
        files, repairs = process.recovered.stream_files, process.engine.repairs

        def job() -> list[Batch] | DamagedBatch:
            try:
                return files.read(stream_id, offset, bytes_max)
            except DamagedBatch as damage:
                return damage

        def again(is_mended: bool) -> None:
            if is_mended:
                self.read(stream_id, offset, bytes_max, then)

        def done(future: Future[list[Batch] | DamagedBatch]) -> None:
            if future.exception():
                return
            found = future.result()
            if isinstance(found, DamagedBatch):
                self._check_damage(found)
                repairs.report(stream_id, found, again)
            else:
                then(found)

        process.runtime.run(Lane.STREAMS, job, done)


def ignore(accepted: bool) -> None:
    """Whether leadership can be handed over is the cluster's business."""
