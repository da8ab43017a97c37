"""What must never happen, looked at all the time.

- In a term there is at most one leader, and it has every entry that was committed in earlier terms.
- At one index every node applies the same entry with the same results, also after a restart.
- When an append is acknowledged, its entry would survive a power loss of all nodes on a majority.
- A linearizable read shows all that was acknowledged before it began, a read with a token what the
  token is of; nothing that a node has shown goes away again.
- Groups, leases and transactions go by their rules in the log's order (`group_model.py`).
- Every node knows when it has caught up with what was committed before it started.
- A node only dies of what was done to its disk, and then it says nothing more.

What can only be judged at the end is in `history.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from ...storage import checkpoint
from ...storage.batch import Batch
from ...storage.errors import StorageError
from ...storage.wal import Wal
from .. import snapshot
from ..commands import AppendBatch, Transact, decode_commands
from ..machine import StateMachine
from ..members import Config
from ..recent import Recent
from ..types import Receipt, TransactionReceipt
from .group_model import GroupModel
from .keyed import KeyedRecords
from .node import DATA

if TYPE_CHECKING:
    from .node import Process, SimNode
    from .world import World


@dataclass(frozen=True, slots=True)
class Violation:
    at: float
    kind: str
    text: str


@dataclass(slots=True)
class Seen:
    """What one process has shown so far."""

    term: int = 0
    applied_index: int = 0
    synced: bool = False
    was_leader: bool = False


class Checks:
    def __init__(self, world: World) -> None:
        self.violations: list[Violation] = []
        self.acked_index = 0
        """Newest index of an acknowledged append."""
        self.acked_ends: dict[str, int] = {}
        """Offset behind the newest acknowledged record, by stream."""
        self.created: set[str] = set()
        """Streams that clients were told exist, and that nobody deletes."""
        self.checked_durable = 0
        self.reads = 0
        self.leaders: dict[int, str] = {}
        self.groups = GroupModel(self.violate)
        self._world = world
        self._applied: list[tuple[int, bytes]] = []
        """(term, digest of entry and results) of every index applied anywhere, from 1."""
        self._committed_by: list[int] = []
        """The term in which each of them was committed at the latest."""
        self._bodies: dict[tuple[int, int], bytes] = {}
        """The body of each batch, by stream id and first offset."""
        self.keyed = KeyedRecords(self)
        self._seen: dict[str, Seen] = {}
        self._configs: dict[int, Config] = {}

    def violate(self, kind: str, text: str) -> None:
        self.violations.append(Violation(self._world.scheduler.now, kind, text))
        self._world.scheduler.is_over = True
        self._world.trace.add(f"VIOLATION {kind}: {text}")

    @property
    def applied_max(self) -> int:
        """The newest index applied anywhere."""
        return len(self._applied)

    # ---- nodes

    def started(self, node: SimNode) -> None:
        """A process runs: it may know less than the one before it, but not of other things."""
        assert node.process is not None
        self._seen[node.id] = Seen()

    def look(self, node: SimNode) -> None:
        """Called after everything a node does."""
        process, seen = node.process, self._seen[node.id]
        assert process is not None
        core = process.core
        term = core.term()
        if term < seen.term:
            self.violate("term goes back", f"{node.id} from {seen.term} to {term}")
        if core.is_leader() and not (seen.was_leader and term == seen.term):
            self._new_leader(node, process, term)
        seen.term, seen.was_leader = term, core.is_leader()
        applied = core.applied_index()
        if applied < seen.applied_index:
            self.violate("state goes back", f"{node.id} from {seen.applied_index} to {applied}")
        seen.applied_index = applied
        if core.synced and not seen.synced:
            seen.synced = True
            self._check_caught_up(node, process)

    def _new_leader(self, node: SimNode, process: Process, term: int) -> None:
        self._world.trace.add(f"{node.id} leads in term {term}")
        other = self.leaders.setdefault(term, node.id)
        if other != node.id:
            self.violate("two leaders", f"{other} and {node.id} in term {term}")
        journal = process.core.journal
        for index in {self.applied_max, self.applied_max // 2, self.applied_max - 1}:
            if index <= journal.base_index or self._committed_by[index - 1] >= term:
                continue
            known = self._applied[index - 1][0]
            if index > journal.last_index or journal.term_at(index) != known:
                text = f"{node.id} leads in term {term} without entry {index} of term {known}"
                self.violate("incomplete leader", text)

    def _check_caught_up(self, node: SimNode, process: Process) -> None:
        applied = process.core.applied_index()
        if applied < process.acked_before:
            text = f"{node.id} has applied {applied}, acknowledged was {process.acked_before}"
            self.violate("not caught up", text)

    # ---- entries

    def applied(
        self,
        node_id: str,
        index: int,
        term: int,
        command: memoryview | None,
        results: list[Any],
        machine: StateMachine,
    ) -> None:
        """An entry was applied; the first node to do so says what it is."""
        digest = xxhash.xxh3_128_digest(bytes(command or b"") + repr(results).encode())
        if index <= len(self._applied):
            if self._applied[index - 1] != (term, digest):
                text = f"{node_id} applies another entry {index} than before, of term {term}"
                self.violate("states differ", text)
            return
        if index != len(self._applied) + 1:
            self.violate("gap", f"{node_id} applies {index} after {len(self._applied)}")
            return
        self._applied.append((term, digest))
        process = self._world.nodes[node_id].process
        assert process is not None
        self._committed_by.append(process.core.term())
        if command is not None:
            self._note(index, command, results, machine)

    def settled(self, node_id: str, index: int, config: Config) -> None:
        """A list of members was committed: all nodes have the same one."""
        if self._configs.setdefault(index, config) != config:
            self.violate("members differ", f"{node_id} has another list at {index}")

    def _note(
        self, index: int, command: memoryview, results: list[Any], machine: StateMachine
    ) -> None:
        for item, result in zip(decode_commands(command), results, strict=True):
            self.groups.applied(index, item, result)
            if isinstance(item, AppendBatch):
                self._note_body(item, result, machine)
            elif isinstance(item, Transact) and isinstance(result, TransactionReceipt):
                for append, receipt in zip(item.appends, result.appends, strict=True):
                    self._note_body(append, receipt, machine)

    def _note_body(self, command: AppendBatch, result: Any, machine: StateMachine) -> None:
        stream = machine.streams.get(command.stream)
        if isinstance(result, Receipt) and not result.duplicate and stream is not None:
            self._bodies[stream.id, result.first_offset] = command.body
            self.keyed.note(stream, command, result)

    def bodies_of(self, stream_id: int) -> Iterator[tuple[int, bytes]]:
        """Yield the first offset and the body of every batch that was ever applied."""
        for (owner, first_offset), body in self._bodies.items():
            if owner == stream_id:
                yield first_offset, body

    def check_batches(self, where: str, stream_id: int, batches: list[Batch]) -> None:
        """Batches that were read are those that were applied."""
        if self.keyed.knows(stream_id):
            self.keyed.check(where, stream_id, batches)
            return
        for batch in batches:
            if self._bodies.get((stream_id, batch.base_offset)) != bytes(batch.body):
                text = f"{where}: stream {stream_id} at {batch.base_offset}"
                self.violate("wrong bytes", text)

    # ---- acknowledgements

    def acknowledged(self, receipt: Receipt) -> None:
        """A client is told that its append is done."""
        end = self.acked_ends.get(receipt.stream, 0)
        self.acked_ends[receipt.stream] = max(end, receipt.last_offset + 1)
        self.promised(receipt.index, receipt.term)

    def promised(self, index: int, term: int) -> None:
        """A client is told that what this entry does is done."""
        self.acked_index = max(self.acked_index, index)
        if self._world.rng.random() < self._world.mode.durability_share:
            self._check_durable(index, term)

    def _check_durable(self, index: int, term: int) -> None:
        self.checked_durable += 1
        nodes = self._world.nodes.values()
        holders = [node.id for node in nodes if self._survives(node, index, term)]
        if 2 * len(holders) <= len(self._world.nodes):
            text = f"entry {index} of term {term} is on the disks of {holders}"
            self.violate("acknowledged before it was durable", text)

    def _survives(self, node: SimNode, index: int, term: int) -> bool:
        """Would the entry be there if the power failed now, and nothing unsynced were kept?"""
        disk = node.disk.synced_only(without="streams")
        if not disk.exists(f"{DATA}/wal"):
            return False
        machine = StateMachine(Recent(0), 0)
        try:
            sections = checkpoint.load(disk, DATA)
            if sections is not None:
                snapshot.restore(sections, machine)
            if index <= machine.applied_index:
                return True
            after, after_term = machine.applied_index, machine.applied_term
            wal = Wal.open(f"{DATA}/wal", files=disk, after=after, after_term=after_term)
        except (StorageError, OSError) as error:
            self.violate("a power loss would be fatal", f"{node.id}: {error!r}")
            return False
        return index <= wal.last_index and wal.term_at(index) == term
