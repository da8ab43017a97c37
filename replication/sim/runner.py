"""Plays one seed."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from tempfile import TemporaryDirectory
from typing import TypeAlias

from ...storage.batch import Batch
from ...storage.errors import StorageError
from .checks import Checks, Violation
from .claimers import Claimer
from .clients import STREAMS, Appender, StreamOwner
from .clock import NodeClock
from .consumers import Consumer
from .faults import Faults
from .history import History
from .index_users import IndexUser
from .keyed import KeyedAppender
from .modes import FOLDER_ROT, MODES, Mode
from .node import SimNode
from .patching import patched
from .readers import Reader
from .scheduler import LINES_KEPT
from .world import World

CONVERGENCE_S = 30.0
"""After all faults have ended, all nodes must agree within this time …"""
MESSAGES_TO_CONVERGE = 1000
"""… and the time that so many messages take: a snapshot is fetched in very small pieces here."""
KEYED_APPENDERS = 2
PACKAGE = "cute_logger"
MAY_COMPLAIN = ("cute_logger.replication.catchup",)
"""What was fetched before a power loss may be torn after it."""
MAY_COMPLAIN_OF_ROT = (
    "cute_logger.replication.checkpoint_scrub",
    "cute_logger.replication.engine",
    "cute_logger.replication.recovery",
    "cute_logger.replication.snapshot_source",
)


@dataclass(frozen=True, slots=True)
class Result:
    mode: str
    seed: int
    trace_hash: str
    violations: list[Violation]
    lines: list[str]
    """The newest lines of the trace."""
    virtual_s: float
    steps: int
    acked: int
    entries: int
    """Raft entries applied."""
    terms: int
    reads: int
    lives: int
    """Processes started."""
    checked_durable: int
    """Acknowledgements that were checked against the bytes on all disks."""


def simulate(mode: str | Mode, seed: int, *, lines_max: int | None = LINES_KEPT) -> Result:
    """Play seed `seed` of a mode; the same seed gives the same result, in any process."""
    chosen = MODES[mode] if isinstance(mode, str) else mode
    with TemporaryDirectory(prefix="cute-sim-") as scratch:
        world = World(seed, chosen, lines_max, scratch)
        simulation = Simulation(world)
        listening = _listening(world.checks, world.mode)
        with patched(world.monotonic, seed), listening, _no_collection():
            simulation.run()
        simulation.close()
    return simulation.result()


Client: TypeAlias = Appender | StreamOwner | Reader | Consumer | Claimer | IndexUser | KeyedAppender


class Simulation:
    def __init__(self, world: World) -> None:
        self._world = world
        self._history = History()
        world.checks = Checks(world)
        drift = world.mode.clock_drift
        for node_id in world.node_ids:
            rate = 1.0 + world.rng.uniform(-drift, drift)
            node = SimNode(node_id, world, NodeClock(world.rng.uniform(10.0, 1000.0), rate))
            world.nodes[node_id] = node
            world.network.add(node)
        self._faults = Faults(world, Random(f"faults {world.mode.name} {world.seed}"))

    def run(self) -> None:
        world = self._world
        for node in world.nodes.values():
            node.start_after(world.rng.uniform(0.0, 0.3))
        for client in self._clients():
            world.scheduler.after(world.rng.uniform(0.5, 1.5), client.begin)
        self._faults.begin()
        world.scheduler.run_until(world.mode.duration_s)
        world.trace.add("faults end")
        world.is_healing = True
        self._faults.heal()
        if self._converge():
            self._check_end()
            self._lose_all_power()

    def close(self) -> None:
        """Give up what is on the real disk."""
        for node in self._nodes():
            if node.process is not None:
                node.process.recovered.index_files.close()

    def _clients(self) -> Iterator[Client]:
        world, seed = self._world, self._world.seed
        yield StreamOwner(world, Random(f"owner {seed}"))
        for number in range(world.mode.appenders):
            yield Appender(world, Random(f"appender {number} {seed}"), self._history, number)
        for number in range(KEYED_APPENDERS):
            yield KeyedAppender(world, Random(f"keyed {number} {seed}"), number)
        for number in range(world.mode.readers):
            yield Reader(world, Random(f"reader {number} {seed}"), self._history)
        for number in range(world.mode.consumers):
            yield Consumer(world, Random(f"consumer {number} {seed}"), self._history, number)
        for number in range(world.mode.claimers):
            yield Claimer(world, Random(f"claimer {number} {seed}"), number)
        if world.mode.has_indexes:
            yield IndexUser(world, Random(f"indexes {seed}"))

    # ---- the end

    def _lose_all_power(self) -> None:
        """At last all machines lose power at once: what was acknowledged is there after it."""
        for node in self._world.nodes.values():
            node.kill(power=True)
            node.start_after(0.1)
        if self._converge():
            self._check_end()

    def _converge(self) -> bool:
        world, scheduler = self._world, self._world.scheduler
        delay_s = world.mode.delay_s_min + world.mode.delay_s
        end = scheduler.now + CONVERGENCE_S + MESSAGES_TO_CONVERGE * delay_s
        while not scheduler.is_over:
            scheduler.run_until(scheduler.now + 0.25)
            if not scheduler.is_over and self._has_converged():
                return True
            if scheduler.now >= end:
                text = "; ".join([*map(_describe, self._nodes()), *self._faults.rot.describe()])
                world.checks.violate("no convergence", text)
        return False

    def _nodes(self) -> list[SimNode]:
        return list(self._world.nodes.values())

    def _members(self) -> list[SimNode]:
        """The nodes that the leader counts among the cluster's; the leader comes first."""
        leader = self._world.leader()
        if leader is None:
            return []
        others = {member.id for member in leader.members.newest.members} - {leader.id}
        return [leader, *(self._world.nodes[node] for node in sorted(others))]

    def _has_converged(self) -> bool:
        """One node leads, and all members have applied and written all that is in any log; those
        that are to vote may.
        """
        members = self._members()
        processes = [node.process for node in members if node.process is not None]
        if sum(node.is_leader for node in members) != 1 or len(processes) != len(members):
            return False
        config = members[0].members.newest
        if any(member.becomes_voter or not member.incarnation for member in config.members):
            return False
        last = {process.core.journal.last_index for process in processes}
        applied = {process.core.applied_index() for process in processes}
        written = all(not process.recovered.machine.unwritten_bytes for process in processes)
        written &= not any(process.recovered.machine.compactions for process in processes)
        synced = all(process.core.synced for process in processes)
        is_mended = self._faults.rot.is_mended() and self._faults.folder_rot.is_mended()
        return last == applied and len(last) == 1 and written and synced and is_mended

    def _check_end(self) -> None:
        checks = self._world.checks
        first, *others = self._members()
        batches = self._batches(first)
        self._check_keyed(first, batches)
        state = self._state(first, batches)
        for other in others:
            if self._state(other, self._batches(other)) != state:
                checks.violate("nodes differ in the end", f"{first.id} and {other.id}")
        self._history.check(checks, {name: _values(batches.get(name, [])) for name in STREAMS})

    def _check_keyed(self, node: SimNode, batches: dict[str, list[Batch]]) -> None:
        assert node.process is not None
        for name, stream in node.process.recovered.machine.streams.items():
            self._world.checks.keyed.check_end(node.id, stream, batches.get(name, []))

    def _state(self, node: SimNode, batches: dict[str, list[Batch]]) -> object:
        """All of a node's replicated state that can be compared, with the bytes of its files."""
        process = node.process
        assert process is not None
        machine = process.recovered.machine
        groups = machine.groups
        self._world.checks.groups.check_node(node.id, machine.applied_index, groups)
        streams = {
            name: (
                stream.id,
                stream.log_start_offset,
                stream.next_offset,
                stream.segments.rows(),
                stream.cleaned_until,
                stream.cleanings,
                stream.chain,
                stream.keys.dump(),
                sorted((name, index.id) for name, index in stream.indexes.items()),
                [bytes(batch.data) for batch in batches.get(name, [])],
            )
            for name, stream in sorted(machine.streams.items())
        }
        tables = (machine.producers, groups, machine.transactions)
        return streams, groups.meta(), [table.dump() for table in tables]

    def _batches(self, node: SimNode) -> dict[str, list[Batch]]:
        """All batches of all streams, from their files."""
        assert node.process is not None
        recovered = node.process.recovered
        found: dict[str, list[Batch]] = {}
        node.disk.is_usable = True
        try:
            for name, stream in recovered.machine.streams.items():
                start = stream.log_start_offset
                found[name] = recovered.stream_files.read(stream.id, start, 1 << 30)
                self._world.checks.check_batches(node.id, stream.id, found[name])
        except StorageError as error:
            self._world.checks.violate("unreadable", f"{node.id}: {error!r}")
        finally:
            node.disk.is_usable = False
        return found

    def result(self) -> Result:
        world, checks = self._world, self._world.checks
        return Result(
            mode=world.mode.name,
            seed=world.seed,
            trace_hash=world.trace.hexdigest(),
            violations=checks.violations,
            lines=world.trace.lines(),
            virtual_s=world.scheduler.now,
            steps=world.scheduler.steps,
            acked=len(self._history.acked()),
            entries=checks.applied_max,
            terms=len(checks.leaders),
            reads=checks.reads,
            lives=sum(node.life for node in self._nodes()),
            checked_durable=checks.checked_durable,
        )


def _values(batches: list[Batch]) -> list[bytes]:
    return [record.value or b"" for batch in batches for record in batch.records()]


def _describe(node: SimNode) -> str:
    if node.process is None:
        return f"{node.id} is down"
    core = node.process.core
    return (
        f"{node.id} {core.state_name()} term {core.term()} last {core.journal.last_index} "
        f"durable {core.journal.durable_index} commit {core.commit_index()} "
        f"applied {core.applied_index()} synced {core.synced}"
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """A seed is short: its rubbish is collected once, at its end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            gc.collect()


class Complaints(logging.Handler):
    """Where no disk rots, a node that finds damage, and may repair it, has found a bug."""

    def __init__(self, checks: Checks, mode: Mode) -> None:
        super().__init__(logging.ERROR)
        self._checks = checks
        rots = not FOLDER_ROT.keys().isdisjoint(mode.faults)
        self._may_complain = MAY_COMPLAIN + (MAY_COMPLAIN_OF_ROT if rots else ())

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.ERROR and record.name not in self._may_complain:
            facts = getattr(record, "reason", "")
            self._checks.violate("damage", f"{record.getMessage()}: {facts}")


@contextmanager
def _listening(checks: Checks, mode: Mode) -> Iterator[None]:
    """Whoever wants to see what the nodes log has the trace instead; but no complaint is missed."""
    logger, handler = logging.getLogger(PACKAGE), Complaints(checks, mode)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
