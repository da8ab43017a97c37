"""Every kind of fault, as one strike against an arena under load, healed at the end.

A strike calls `load.strike()` at the moment from which the write gap counts, and returns once all
nodes run again. What it asserts is the node's own duty; what the records say is judged afterwards.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from cute_logger.client import AsyncClient

from .arena import NAMES, Arena
from .damage import DAMAGES
from .load import Load, served_by
from .tracing import SYNCS, WRITES

Strike: TypeAlias = Callable[[Arena, Load], Awaitable[None]]

HOLD_S: Final = 1.5
"""Longer than the longest election timeout: a node that is alone has tried to become leader."""
EXIT_DISK_FAILED: Final = 70
EXIT_S: Final = 1.0
STOP_S: Final = 15.0
JUMP_MS: Final = 3_600_000
SLOW_FSYNC_US: Final = 200_000
STALLED_FSYNC_US: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    strike: Strike
    takes_all: bool = False
    """Nothing can be acknowledged before the restart: the gap counts from there."""
    needs_tracing: bool = False
    gap_s_median_max: float | None = None
    gap_s_max: float | None = None


async def _hold(load: Load) -> None:
    """Leave the fault on until writes go on and everybody has noticed."""
    await load.goes_on()
    await asyncio.sleep(max(0.0, load.struck_at + HOLD_S - time.monotonic()))


async def _kill(arena: Arena, load: Load, *names: str) -> None:
    load.strike()
    arena.cluster.kill(*names)
    if len(names) == len(NAMES):
        load.strike()
    else:
        await load.goes_on()
    arena.cluster.start(*names)


async def kill_leader(arena: Arena, load: Load) -> None:
    await _kill(arena, load, await arena.cluster.leader())


async def kill_follower(arena: Arena, load: Load) -> None:
    await _kill(arena, load, random.choice(arena.followers(await arena.cluster.leader())))


async def kill_all(arena: Arena, load: Load) -> None:
    await _kill(arena, load, *NAMES)


async def _freeze(arena: Arena, load: Load, name: str) -> None:
    load.strike()
    arena.cluster.signal(signal.SIGSTOP, name)
    await _hold(load)
    arena.cluster.signal(signal.SIGCONT, name)


async def freeze_leader(arena: Arena, load: Load) -> None:
    await _freeze(arena, load, await arena.cluster.leader())


async def freeze_follower(arena: Arena, load: Load) -> None:
    await _freeze(arena, load, random.choice(arena.followers(await arena.cluster.leader())))


async def _cut(arena: Arena, load: Load, *ways: tuple[str, str]) -> None:
    load.strike()
    arena.network.cut(*ways)
    await _hold(load)
    arena.network.heal()


async def cut_off_leader(arena: Arena, load: Load) -> None:
    """The others do not hear it, and it does not hear them; clients reach all."""
    await _cut(arena, load, *arena.network.both_ways(await arena.cluster.leader()))


async def mute_leader(arena: Arena, load: Load) -> None:
    """Its packets to the others are lost, theirs arrive."""
    await _cut(arena, load, *arena.network.ways_from(await arena.cluster.leader()))


async def deafen_leader(arena: Arena, load: Load) -> None:
    """The others' packets to it are lost, its own arrive."""
    leader = await arena.cluster.leader()
    await _cut(arena, load, *(way[::-1] for way in arena.network.ways_from(leader)))


async def cut_bridge(arena: Arena, load: Load) -> None:
    """The leader and a follower are cut apart; the third node sees both."""
    leader = await arena.cluster.leader()
    other = random.choice(arena.followers(leader))
    await _cut(arena, load, *arena.network.both_ways(leader, other))


async def lose_packets(arena: Arena, load: Load) -> None:
    """Each node loses 10 to 20 % of what the others send it."""
    load.strike()
    for name in NAMES:
        arena.network.lose(random.uniform(0.1, 0.2), *arena.network.ways_from(name))
    await _hold(load)
    arena.network.heal()


async def power_off_one(arena: Arena, load: Load) -> None:
    name = random.choice(NAMES)
    load.strike()
    arena.lose_power(name)
    await load.goes_on()
    arena.cluster.start(name)


async def power_off_all(arena: Arena, load: Load) -> None:
    arena.lose_power(*NAMES)
    load.strike()
    arena.cluster.start()


async def _fail_calls(arena: Arena, load: Load, name: str, calls: str) -> None:
    """From some call on the disk refuses: the node ends at once, and the others go on."""
    injection = arena.inject(name, calls, "error=EIO:when=1+")
    load.strike()
    code = await arena.exit_code(name, deadline_s=5)
    ended = time.time()
    arena.stop_injecting()
    assert code == EXIT_DISK_FAILED, f"{name} ended with {code}"
    delay_s = ended - injection.injected_at()[0]
    assert delay_s < EXIT_S, f"{name} ended {delay_s:.3f} s after the disk failed"
    await load.goes_on()
    told = dict(load.acknowledged)
    survivor = next(other for other in NAMES if other != name)
    served = await served_by(arena.cluster.url(survivor), load.stream)
    alone = [value for value, each in told.items() if served[each.offset]["value"] != value]
    assert not alone, f"{name} acknowledged what nobody else has: {alone[:5]}"
    arena.cluster.start(name)


async def fail_leaders_fsync(arena: Arena, load: Load) -> None:
    await _fail_calls(arena, load, await arena.cluster.leader(), SYNCS)


async def fail_followers_fsync(arena: Arena, load: Load) -> None:
    leader = await arena.cluster.leader()
    await _fail_calls(arena, load, random.choice(arena.followers(leader)), SYNCS)


async def fail_writes(arena: Arena, load: Load) -> None:
    await arena.cluster.leader()
    await _fail_calls(arena, load, random.choice(NAMES), WRITES)


async def slow_leaders_fsync(arena: Arena, load: Load) -> None:
    """Every fsync takes 0.2 s more: no reason for more than one election."""
    leader = await arena.cluster.leader()
    term = await arena.term()
    arena.inject(leader, SYNCS, f"delay_exit={SLOW_FSYNC_US}")
    load.strike()
    await _hold(load)
    arena.stop_injecting()
    elections = await arena.term() - term
    assert elections <= 1, f"{elections} elections while the leader's disk was slow"


async def stall_followers_fsync(arena: Arena, load: Load) -> None:
    """Every fsync of a majority takes longer than a leader waits for a word: it leads all the same,
    and what is acknowledged is late.
    """
    leader = await arena.cluster.leader()
    term = await arena.term()
    for name in arena.followers(leader):
        arena.inject(name, SYNCS, f"delay_exit={STALLED_FSYNC_US}")
    load.strike()
    await _hold(load)
    arena.stop_injecting()
    elections = await arena.term() - term
    assert elections == 0, f"{elections} elections while the followers' disks stalled"


async def _fill(arena: Arena, load: Load, *names: str) -> None:
    """Nothing fits on the disks; some time later there is room again."""
    load.strike()
    for name in names:
        arena.disks[name].fill()
    await asyncio.sleep(HOLD_S)
    for name in names:
        arena.disks[name].make_room()
    if len(names) * 2 > len(NAMES):
        load.strike()
    for name in names:
        if not arena.is_running(name):
            arena.cluster.start(name)


async def fill_leaders_disk(arena: Arena, load: Load) -> None:
    await _fill(arena, load, await arena.cluster.leader())


async def fill_followers_disk(arena: Arena, load: Load) -> None:
    await _fill(arena, load, random.choice(arena.followers(await arena.cluster.leader())))


async def fill_majority(arena: Arena, load: Load) -> None:
    await arena.cluster.leader()
    await _fill(arena, load, *random.sample(NAMES, 2))


async def jump_clocks(arena: Arena, load: Load) -> None:
    """Every node's wall clock jumps, the leader's ahead and then back."""
    leader = await arena.cluster.leader()
    ahead, back = arena.followers(leader)
    load.strike()
    for name, shift_ms in (ahead, JUMP_MS), (back, -JUMP_MS), (leader, JUMP_MS), (leader, -JUMP_MS):
        arena.clocks[name].jump(shift_ms)
        await load.goes_on()
    async with AsyncClient([arena.cluster.url(leader)]) as client:
        times = [record.timestamp async for record in client.read_iter(load.stream)]
    assert times == sorted(times), "a stream's timestamps went back"
    assert times[-1] - times[0] > JUMP_MS - 60_000, "the leader's clock did not jump"


def _damage(kind: str) -> Strike:
    async def strike(arena: Arena, load: Load) -> None:
        name = random.choice(NAMES)
        await load.append_large(20, 30_000)
        load.strike()
        # One that stops in order leaves a checkpoint and a log that nobody needs.
        arena.cluster.signal(signal.SIGTERM if kind == "checkpoint" else signal.SIGKILL, name)
        assert await arena.exit_code(name, STOP_S) is not None, f"{name} did not stop"
        await load.goes_on()
        await DAMAGES[kind](arena, load, name)

    return strike


FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("kill leader", kill_leader, gap_s_median_max=0.5, gap_s_max=5),
        Fault("kill follower", kill_follower, gap_s_max=5),
        Fault("kill all", kill_all, takes_all=True, gap_s_max=5),
        Fault("freeze leader", freeze_leader, gap_s_median_max=1.2, gap_s_max=5),
        Fault("freeze follower", freeze_follower, gap_s_max=5),
        Fault("cut off leader", cut_off_leader, gap_s_median_max=1.2, gap_s_max=5),
        Fault("mute leader", mute_leader, gap_s_median_max=1.2, gap_s_max=5),
        Fault("deafen leader", deafen_leader, gap_s_median_max=1.2, gap_s_max=5),
        Fault("cut bridge", cut_bridge, gap_s_max=5),
        Fault("lose packets", lose_packets, gap_s_max=5),
        Fault("power off one", power_off_one, gap_s_max=5),
        Fault("power off all", power_off_all, takes_all=True, gap_s_max=5),
        Fault("fail leader's fsync", fail_leaders_fsync, needs_tracing=True, gap_s_max=5),
        Fault("fail follower's fsync", fail_followers_fsync, needs_tracing=True, gap_s_max=5),
        Fault("fail writes", fail_writes, needs_tracing=True, gap_s_max=5),
        Fault("slow leader's fsync", slow_leaders_fsync, needs_tracing=True, gap_s_max=5),
        Fault(
            "stall followers' fsync",
            stall_followers_fsync,
            needs_tracing=True,
            gap_s_max=8,
        ),
        Fault("fill leader's disk", fill_leaders_disk, gap_s_max=5),
        Fault("fill follower's disk", fill_followers_disk, gap_s_max=5),
        Fault("fill majority", fill_majority, takes_all=True),
        Fault("jump clocks", jump_clocks, gap_s_max=5),
        *(Fault(f"damage {kind}", _damage(kind), gap_s_max=5) for kind in DAMAGES),
    )
}
