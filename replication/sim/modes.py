"""How hostile a simulated world is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

from ..config import Timing

NETWORK = {"isolate": 3, "cut": 2, "one_way": 2, "reset": 2, "pause": 2}
PROCESS = {"kill": 3, "kill_leader": 2, "kill_writing": 3, "kill_all": 1, "restart": 1}
POWER = {"power": 3, "power_leader": 2, "power_writing": 3, "power_all": 2}
DISK = {"slow_disk": 2, "disk_error": 1, "disk_full": 1}
MEMBERS = {"add": 6, "remove": 3, "reshape": 3, "wipe": 3}
ROT = {"rot": 12, "rot_index": 3}
FOLDER_ROT = {"rot_log": 12, "rot_checkpoint": 4, "rot_checkpoint_live": 8, "rot_mark": 3}
OTHER = {"transfer": 2, "wall_jump": 1}


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    faults: Mapping[str, int] = field(default_factory=dict)
    """What goes wrong, by weight (see faults.py)."""
    fault_every_s: float = 1.0
    nodes: int = 3
    founders: int | None = None
    """So many of them begin the cluster, all if None; the others wait to be added."""
    delay_s: float = 0.001
    """Mean of the varying part of a one-way delay, on top of `delay_s_min`."""
    delay_s_min: float = 0.0003
    fsync_s: float = 0.001
    """Mean of the varying part of an fsync."""
    clock_drift: float = 0.0
    """Machines' clocks run up to this much too fast or too slow."""
    appenders: int = 4
    think_s: float = 0.2
    readers: int = 3
    consumers: int = 2
    duration_s: float = 30.0
    durability_share: float = 0.05
    """So many acknowledgements are checked against the bytes on all disks; it takes a while."""
    scrub_bytes_per_s: int = 0
    """Nodes look for damage in their segments at this pace, every two seconds."""
    has_indexes: bool = True
    """Somebody defines indexes and searches."""
    timing: Timing = field(default_factory=Timing)
    varies: bool = True
    """Every seed plays some of the faults only, more or less often, under more or less load."""

    def drawn(self, rng: Random) -> Mode:
        """What one seed plays.

        Runs that differ find more than runs that all do a little of everything, and most bugs need
        neither a high load nor a long time ("Swarm Testing", Groce et al., ISSTA 2012).
        """
        if not self.varies:
            return self
        kept = [kind for kind in sorted(self.faults) if kind in MEMBERS or rng.random() < 0.67]
        return replace(
            self,
            faults={kind: self.faults[kind] for kind in kept} or self.faults,
            fault_every_s=self.fault_every_s * rng.choice((0.5, 1.0, 2.0)),
            think_s=self.think_s * rng.choice((1.0, 2.0, 5.0)),
            readers=self.readers * rng.choice((1, 2)),
            duration_s=self.duration_s * rng.choice((0.33, 0.67, 1.0)),
            consumers=self.consumers * rng.choice((0, 1, 2)),
        )


MODES = {
    mode.name: mode
    for mode in (
        Mode("calm", OTHER, fault_every_s=4.0),
        Mode("network", {**NETWORK, **OTHER}),
        Mode("crashes", {**PROCESS, **OTHER, "reset": 1, "slow_disk": 1}),
        Mode("power", {**POWER, **PROCESS, **OTHER}, fault_every_s=1.2),
        Mode(
            "slow",
            {**NETWORK, "kill_leader": 2, "power": 1, **OTHER},
            delay_s=0.02,
            delay_s_min=0.04,
            fsync_s=0.01,
        ),
        Mode(
            "snapshots",
            {
                "absent": 5,
                "isolate": 1,
                "reset": 2,
                "kill": 1,
                "kill_leader": 1,
                "kill_writing": 3,
                "power_writing": 3,
                **OTHER,
            },
            fault_every_s=0.8,
            think_s=0.1,
        ),
        Mode("five", {**NETWORK, **PROCESS, **POWER, **OTHER}, nodes=5, fault_every_s=0.7),
        Mode(
            "members",
            {**MEMBERS, **NETWORK, **PROCESS, "power": 2, "power_all": 1, **OTHER},
            nodes=5,
            founders=3,
            fault_every_s=0.5,
            durability_share=0.0,
        ),
        Mode(
            "rot",
            {**ROT, **NETWORK, **PROCESS, "power": 3, "power_all": 1, "disk_full": 1, **OTHER},
            fault_every_s=0.4,
            scrub_bytes_per_s=1 << 20,
        ),
        Mode(
            "folders",
            {**FOLDER_ROT, **NETWORK, **PROCESS, "power": 3, "power_all": 1, **OTHER},
            fault_every_s=0.4,
            durability_share=0.0,
            scrub_bytes_per_s=1 << 20,
        ),
        Mode(
            "evil",
            {**NETWORK, **PROCESS, **POWER, **DISK, **OTHER},
            fault_every_s=0.6,
            delay_s=0.004,
            fsync_s=0.004,
            clock_drift=0.02,
        ),
    )
}
