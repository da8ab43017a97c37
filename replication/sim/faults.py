"""What goes wrong, and when."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random

from ..engine import Engine
from ..errors import MembershipConflict
from ..members import Config, added, removed
from .folder_rot import FolderRot
from .network import SILENT_LINK_S
from .node import SimNode, ignore
from .rot import Rot
from .world import World

FIRST_FAULT_S = 1.5


class Faults:
    """Draws one fault after the other from the mode's table until the world heals."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._kinds = sorted(world.mode.faults)
        self.rot = Rot(world, rng)
        self.folder_rot = FolderRot(world, rng)
        self._weights = [world.mode.faults[kind] for kind in self._kinds]
        self._actions: dict[str, Callable[[SimNode], None]] = {
            "isolate": self._isolate,
            "cut": self._cut,
            "one_way": self._one_way,
            "reset": self._reset,
            "pause": lambda node: node.pause(self._some((0.3, 1.0, 2.5))),
            "kill": lambda node: self._kill(node, power=False),
            "kill_leader": lambda node: self._kill(self._leader_or(node), power=False),
            "kill_writing": self._stop_writing,
            "kill_all": lambda node: self._kill_all(power=False),
            "absent": self._absent,
            "restart": SimNode.stop,
            "power": lambda node: self._kill(node, power=True),
            "power_leader": lambda node: self._kill(self._leader_or(node), power=True),
            "power_writing": self._stop_writing,
            "power_all": lambda node: self._kill_all(power=True),
            "slow_disk": self._slow_disk,
            "disk_error": self._disk_error,
            "disk_full": self._disk_full,
            "rot": self.rot.strike_segment,
            "rot_index": self.rot.strike_index,
            "rot_log": partial(self._rot_folder, self.folder_rot.strike_log),
            "rot_checkpoint": partial(self._rot_folder, self.folder_rot.strike_checkpoint),
            "rot_checkpoint_live": self._rot_live,
            "rot_mark": partial(self._rot_folder, self.folder_rot.strike_mark),
            "add": self._add,
            "remove": self._remove,
            "reshape": self._reshape,
            "wipe": self._wipe,
            "transfer": self._transfer,
            "wall_jump": self._wall_jump,
        }

    def begin(self) -> None:
        self._world.scheduler.after(FIRST_FAULT_S, self._next)

    def _next(self) -> None:
        if self._world.is_healing:
            return
        every_s = self._world.mode.fault_every_s
        self._world.scheduler.after(self._rng.expovariate(1 / every_s), self._next)
        (kind,) = self._rng.choices(self._kinds, self._weights)
        node = self._world.nodes[self._rng.choice(self._world.node_ids)]
        if self._rng.random() < 0.4:
            node = self._leader_or(node)
        self._world.trace.add(f"fault: {kind} at {node.id}")
        self._actions[kind](node)

    def heal(self) -> None:
        """End everything that is wrong, and start who is down; who stands still wakes up soon."""
        self._world.network.heal()
        for node in self._world.nodes.values():
            node.set_disk_slow(0.0)
            node.disk.is_full = False
            node.disk.stop_after = node.disk.fail_after = None
            node.start()

    def _some(self, durations_s: tuple[float, ...]) -> float:
        return self._rng.choice(durations_s) * self._rng.uniform(0.5, 1.5)

    def _leader_or(self, node: SimNode) -> SimNode:
        return self._world.leader() or node

    def _other(self, node: SimNode) -> str:
        return self._rng.choice([peer for peer in self._world.node_ids if peer != node.id])

    # ---- the network

    def _isolate(self, node: SimNode) -> None:
        duration_s = self._some((0.3, 1.0, 3.0, 1.2 * SILENT_LINK_S))
        for peer in self._world.node_ids:
            if peer != node.id:
                self._world.network.cut(node.id, peer, duration_s)
                self._world.network.cut(peer, node.id, duration_s)

    def _cut(self, node: SimNode) -> None:
        duration_s = self._some((0.5, 2.0, 1.2 * SILENT_LINK_S))
        peer = self._other(node)
        self._world.network.cut(node.id, peer, duration_s)
        self._world.network.cut(peer, node.id, duration_s)

    def _one_way(self, node: SimNode) -> None:
        pair = [node.id, self._other(node)]
        self._rng.shuffle(pair)
        self._world.network.cut(pair[0], pair[1], self._some((0.5, 1.5, 3.0)))

    def _reset(self, node: SimNode) -> None:
        self._world.network.reset(node.id, self._other(node))

    # ---- processes and machines

    def _kill(self, node: SimNode, *, power: bool) -> None:
        node.kill(power=power)
        node.start_after(self._some((0.05, 0.3, 1.0, 3.0)))

    def _absent(self, node: SimNode) -> None:
        """Away for so long that the log alone will not do."""
        node.kill(power=self._rng.random() < 0.5)
        node.start_after(self._rng.uniform(2.0, 6.0))

    def _kill_all(self, *, power: bool) -> None:
        for node in self._world.nodes.values():
            self._kill(node, power=power)

    def _stop_writing(self, node: SimNode) -> None:
        """Stop the process in the middle of one of the next things it does to its disk."""
        node.disk.stop_after = self._rng.choice((0, 1, 2, self._rng.randint(0, 40)))

    def _slow_disk(self, node: SimNode) -> None:
        node.set_disk_slow(self._some((0.05, 0.3, 1.5)))

        def ended() -> None:
            node.set_disk_slow(0.0)

        self._world.scheduler.after(self._some((1.0, 3.0)), ended)

    def _disk_error(self, node: SimNode) -> None:
        node.disk.failure_errno = self._rng.choice((errno.EIO, errno.ENOSPC))
        node.disk.loses_on_failure = self._rng.random() < 0.5
        node.disk.fail_after = self._rng.randint(0, 20)

    def _disk_full(self, node: SimNode) -> None:
        node.disk.is_full = True

        def ended() -> None:
            node.disk.is_full = False

        self._world.scheduler.after(self._some((0.5, 2.0)), ended)

    # ---- members

    def _add(self, node: SimNode) -> None:
        as_voter = self._rng.random() < 0.8
        self._change(
            self._world.leader(),
            lambda old: added(old, node.id, (node.id, 0), as_voter=as_voter),
        )

    def _remove(self, node: SimNode) -> None:
        self._remove_at(self._world.leader(), node)

    def _reshape(self, node: SimNode) -> None:
        """Several are to go at once, by the word of a leader that may soon be none."""
        leader = self._leader_or(node)
        if self._rng.random() < 0.5:
            self._isolate(leader)
        others = [self._world.nodes[self._other(leader)] for _ in range(self._rng.randint(2, 4))]
        for other in others:
            step = partial(self._remove_at, leader, other)
            self._world.scheduler.after(self._rng.uniform(0.0, 0.3), step)

    def _remove_at(self, leader: SimNode | None, node: SimNode) -> None:
        """As long as a majority of those who remain have the disks they count with."""

        def plan(old: Config) -> Config:
            new = removed(old, node.id)
            if len(self._intact(new)) <= len(new.voters()) // 2:
                raise MembershipConflict("two failures at a time")
            return new

        self._change(leader, plan)

    def _intact(self, config: Config) -> set[str]:
        """The voters that still have the disks they count with."""
        voters, nodes = config.voters(), self._world.nodes
        return {node for node in voters if nodes[node].incarnation == voters[node]}

    def _change(self, leader: SimNode | None, plan: Callable[[Config], Config]) -> None:
        if leader is None or leader.process is None or self._world.is_healing:
            return
        if leader.is_leader:
            engine = leader.process.engine
            leader.enter(lambda: None if engine.stopped else _ask(engine, plan))

    def _wipe(self, node: SimNode) -> None:
        """The disk is lost, if that leaves a majority of those who count with theirs."""
        if self._may_lose(node):
            node.kill(power=True)
            node.new_disk(self._world.seed)
            node.start_after(self._some((0.3, 1.0, 3.0)))

    def _may_lose(self, node: SimNode) -> bool:
        leader = self._world.leader()
        if leader is None or leader.process is None or leader is node:
            return False
        core = leader.process.core
        is_sure = core.term() == max(self._world.checks.leaders) and core.may_change_members()
        config = core.members.newest
        intact = self._intact(config) - self.folder_rot.endangered() - {node.id}
        return is_sure and len(intact) > len(config.voters()) // 2

    def _rot_folder(self, strike: Callable[[SimNode], None], node: SimNode) -> None:
        """Bits rot on a machine that is down for a while."""
        if node.is_leader:
            node = self._world.nodes[self._other(node)]
        if self._may_lose(node):
            node.kill(power=self._rng.random() < 0.5)
            strike(node)
            node.start_after(self._some((0.3, 1.0)))

    def _rot_live(self, node: SimNode) -> None:
        if self._may_lose(node):
            self.folder_rot.strike_checkpoint(node)

    # ---- not faults, but inconvenient

    def _transfer(self, node: SimNode) -> None:
        leader = self._leader_or(node)
        if leader.process is not None:
            engine, target = leader.process.engine, self._rng.choice((None, self._other(leader)))
            leader.enter(lambda: None if engine.stopped else ignore(engine.hand_over(target)))

    def _wall_jump(self, node: SimNode) -> None:
        node.wall_offset_ms = self._rng.choice((-3_600_000, -5_000, 0, 5_000, 3_600_000))


def _ask(engine: Engine, plan: Callable[[Config], Config]) -> None:
    """Propose a change of members, unless it cannot be."""
    with suppress(MembershipConflict):
        engine.change_members(plan(engine.core.members.newest))
