"""Everything that the parts of one simulation share."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from .clock import NodeClock
from .modes import Mode
from .network import Network
from .scheduler import Scheduler, Trace

if TYPE_CHECKING:
    from .checks import Checks
    from .node import SimNode

WALL_START_MS = 1_700_000_000_000


class World:
    def __init__(self, seed: int, mode: Mode, lines_max: int | None, scratch: str) -> None:
        """`scratch`: a folder of the real disk, for what cannot be on a simulated one."""
        self.seed = seed
        self.scratch = scratch
        self.mode = mode = mode.drawn(Random(f"mode {mode.name} {seed}"))
        self.rng = Random(f"{mode.name} {seed}")
        self.scheduler = Scheduler()
        self.trace = Trace(self.scheduler, lines_max)
        self.network = Network(
            self.scheduler,
            self.trace,
            Random(f"network {mode.name} {seed}"),
            delay_s=mode.delay_s,
            delay_s_min=mode.delay_s_min,
        )
        self.node_ids = [f"n{number}" for number in range(mode.nodes)]
        self.founders = self.node_ids[: mode.founders]
        """Those that begin the cluster."""
        self.nodes: dict[str, SimNode] = {}
        self.checks: Checks
        self.is_healing = False
        """Faults and new requests have ended."""
        self.clock = NodeClock(0.0, 1.0)
        """That of whichever node runs now: the time that code sees."""

    def monotonic(self) -> float:
        return self.clock.read(self.scheduler.now)

    def wall_ms(self) -> int:
        return WALL_START_MS + int(self.scheduler.now * 1000)

    def leader(self) -> SimNode | None:
        """The node that leads in the latest term, as far as nodes believe in themselves."""
        leaders = [node for node in self.nodes.values() if node.is_leader]
        return max(leaders, key=_term, default=None)


def _term(node: SimNode) -> int:
    assert node.process is not None
    return node.process.core.term()
