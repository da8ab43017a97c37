"""Settings of the replication layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from msgspec import Meta

KiB = 1 << 10
MiB = 1 << 20

Address = tuple[str, int]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535)]


@dataclass(frozen=True, slots=True)
class Timing:
    """Raft's periods in seconds. The defaults suit small machines that do other work too.

    An election timeout should be ten times a round trip plus an fsync (Raft, section 5.6).
    """

    append_period_s: float = 0.1
    """Heartbeat period of an idle leader."""
    election_timeout_s_min: float = 0.5
    election_timeout_s_max: float = 1.0
    check_quorum_s: float = 1.0
    """A leader that did not hear from a majority for this long steps down."""

    def __post_init__(self) -> None:
        if not 0 < 3 * self.append_period_s < self.election_timeout_s_min:
            raise ValueError("election_timeout_s_min must be over 3 × append_period_s")
        if self.election_timeout_s_max <= self.election_timeout_s_min:
            raise ValueError("election_timeout_s_max must be over election_timeout_s_min")
        if self.check_quorum_s <= self.append_period_s:
            raise ValueError("check_quorum_s must be over append_period_s")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every queue and buffer, in bytes unless said otherwise."""

    entry_bytes: int = 1 * MiB
    """Waiting appends are coalesced into one Raft entry up to this size."""
    uncommitted_bytes: int = 64 * MiB
    """Appends that wait for their majority; above it new ones are throttled."""
    unwritten_bytes: int = 32 * MiB
    """Applied batches that wait for the streams' files; above it apply pauses."""
    cache_bytes: int = 32 * MiB
    """Batches of all streams kept in memory for readers: the newest, and those read last."""
    wal_segment_bytes: int = 64 * MiB
    wal_cache_bytes: int = 16 * MiB
    wal_retain_bytes: int = 128 * MiB
    """Log kept for followers that were away; who needs more gets a snapshot."""
    catchup_bytes_per_s: int = 100 * MiB
    """A node that fetches a snapshot asks for no more: the leader has other work."""
    disk_reserve_bytes: int = 256 * MiB
    """Room kept free on the disk: appends are refused before it is used up."""
    checkpoint_bytes: int = 64 * MiB
    """A checkpoint is taken once this much was applied since the last; bounds the replay after a
    crash.
    """
    checkpoint_s: float = 60.0
    """… or after this many seconds, if anything was applied."""
    checkpoint_after_trim_s: float = 5.0
    """… or so long after a trim: only then its files can be removed."""
    retention_period_s: float = 5.0
    """Time between two looks of the leader for what retention lets go."""
    scrub_bytes_per_s: int = 4 * MiB
    """Pace at which all segments are read in the background, to find damage; 0 is never."""
    scrub_pause_s: float = 86_400.0
    """Time between two rounds of that."""
    compaction_period_s: float = 5.0
    """Time between two looks of the leader for what is to be compacted."""
    compaction_bytes_per_s: int = 8 * MiB
    """Pace at which segments are read to be compacted."""
    compaction_keys_max: int = 500_000
    """Keys told apart in one pass: 100 MB of the leader's memory at most. With more of them it
    takes more passes.
    """


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    id: str
    data: str
    """Data folder; created if missing, locked while in use."""
    raft_address: Address
    peers: Mapping[str, Address]
    """The other nodes, by id; who is a member says the log, as soon as there is one."""
    raft_advertise: Address | None = None
    """Where the others dial, if that is not where this node listens."""
    joins: bool = False
    """This node is to be added to a cluster: it founds none, and waits."""
    http_url: str | None = None
    """Base URL told to the other nodes, so that they can forward to this one."""
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    index_folder: str | None = None
    """Where secondary indexes are, on a real disk, if not in `data`; nothing is synced there."""

    @property
    def address(self) -> Address:
        """Where the others dial this node."""
        return self.raft_advertise or self.raft_address
