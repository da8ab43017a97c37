"""Clients that read: linearizably, with a token, or just what a node has."""

from __future__ import annotations

from functools import partial
from random import Random

from ...storage.batch import Batch
from ..stream import Stream
from .clients import PASSING_STREAMS, STREAMS
from .history import History
from .node import Process, SimNode
from .world import World

READ_BYTES = 2_000
READ_EVERY_S = 0.25


class Reader:
    """Reads now here, now there, and remembers what each node has shown."""

    def __init__(self, world: World, rng: Random, history: History) -> None:
        self._world = world
        self._rng = rng
        self._history = history
        self._shown: dict[tuple[str, str], int] = {}
        """High watermark seen, by node and stream; a restart is no excuse for showing less."""

    def begin(self) -> None:
        if self._world.is_healing:
            return
        self._world.scheduler.after(self._rng.expovariate(1 / READ_EVERY_S), self.begin)
        node = self._world.nodes[self._rng.choice(self._candidates())]
        read = self._rng.choice((self._linearizable, self._after_token, self._local))
        node.enter(partial(read, node))

    def _candidates(self) -> list[str]:
        """All nodes, or those that say they lead: one of them may be wrong."""
        world = self._world
        leaders = [node.id for node in world.nodes.values() if node.is_leader]
        return leaders if leaders and self._rng.random() < 0.4 else world.node_ids

    def _linearizable(self, node: SimNode) -> None:
        """Ask for an index, wait for it, read: everything acknowledged by now must be there."""
        assert node.process is not None
        floor = dict(self._world.checks.acked_ends)
        life = node.life

        def answered(index: int | None) -> None:
            if index is not None and node.process is not None and life == node.life:
                node.wait_applied(index, partial(self._expect, node, floor, "linearizable"))

        node.process.engine.read_barrier(answered)

    def _after_token(self, node: SimNode) -> None:
        """Wait for the index of a receipt and read: that append must be there."""
        acked = self._history.operations[-200:]
        receipts = [each.receipt for each in acked if each.receipt is not None]
        if receipts:
            receipt = self._rng.choice(receipts)
            floor = {receipt.stream: receipt.last_offset + 1}
            node.wait_applied(receipt.index, partial(self._expect, node, floor, "token"))

    def _local(self, node: SimNode) -> None:
        self._expect(node, {}, "local")

    def _expect(self, node: SimNode, floor: dict[str, int], kind: str) -> None:
        """Look at all streams of a node that says it has caught up."""
        process = node.process
        assert process is not None
        if not process.core.synced:
            return
        self._world.checks.reads += 1
        for name in STREAMS:
            stream = process.recovered.machine.streams.get(name)
            end = stream.next_offset if stream is not None else 0
            if end < floor.get(name, 0):
                text = f"{node.id} shows {end} of stream {name}, {floor[name]} are acknowledged"
                self._world.checks.violate(f"stale {kind} read", text)
            self._check_never_less(node, name, end)
        self._read_somewhere(node, process)

    def _check_never_less(self, node: SimNode, name: str, end: int) -> None:
        key = (f"{node.id}/{node.disks}", name)
        if end < self._shown.get(key, 0):
            text = f"{node.id} showed {self._shown[key]} of stream {name}, now {end}"
            self._world.checks.violate("a read goes back", text)
        self._shown[key] = end

    def _read_somewhere(self, node: SimNode, process: Process) -> None:
        names = STREAMS + PASSING_STREAMS
        stream = process.recovered.machine.streams.get(self._rng.choice(names))
        if stream is not None and stream.next_offset > stream.log_start_offset:
            offset = self._rng.randrange(stream.log_start_offset, stream.next_offset)
            then = partial(self._got, node, stream, offset)
            node.read(stream.id, offset, READ_BYTES, then)

    def _got(self, node: SimNode, stream: Stream, offset: int, batches: list[Batch]) -> None:
        checks, process = self._world.checks, node.process
        assert process is not None
        if process.recovered.machine.streams.get(stream.name) is not stream:
            return
        if offset < stream.log_start_offset:
            return
        if not batches or not batches[0].base_offset <= offset < batches[0].next_offset:
            text = f"{node.id}: nothing at {offset} of {stream.next_offset} in {stream.name}"
            checks.violate("unreadable", text)
        checks.check_batches(node.id, stream.id, batches)
