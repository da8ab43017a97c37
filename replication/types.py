"""Values that cross the border between the front end and the replication layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..storage.batch import Batch
from ..storage.codec import CODEC_NONE
from ..storage.record import StoredRecord

StreamConfig = Mapping[str, int | str | bool]
"""A stream's settings under their public names (`retention.ms` …), complete: defaults filled in."""


@dataclass(frozen=True, slots=True)
class ProducerStamp:
    """Which batch of which producer this is: appended at most once."""

    id: int
    epoch: int
    sequence: int
    """Counts the batches this producer sent to this stream, from 0."""


@dataclass(frozen=True, slots=True)
class NoRecord:
    """Holds as long as no record behind an offset has a value: as its key, or by an index."""

    value: bytes
    after: int
    """-1: no record at all."""
    index: str | None = None
    """None: the key."""


@dataclass(frozen=True, slots=True)
class Append:
    """One atomic batch on its way into a stream."""

    stream: str
    body: bytes
    """The records as `storage.record.encode_records` packs them, compressed if `codec` says so."""
    count: int
    record_bytes_max: int
    """Size of the largest record, for the stream's `max.message.bytes`."""
    max_timestamp: int | None = None
    """Largest timestamp a record carries, ms since the epoch; None if no record carries one."""
    if_offset: int | None = None
    conditions: tuple[NoRecord, ...] = ()
    producer: ProducerStamp | None = None
    idempotency_key: str | None = None
    codec: int = CODEC_NONE
    digest: bytes | None = None
    """`body_digest` of the uncompressed body; None: the body is not compressed."""
    keyless: int = 0
    """Records without a key: a compacted stream refuses the batch."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an acknowledged batch is, for ever."""

    stream: str
    first_offset: int
    last_offset: int
    count: int
    timestamp: int
    """ms since the epoch, assigned by the leader."""
    term: int
    index: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class StreamInfo:
    name: str
    config: StreamConfig
    log_start_offset: int
    high_watermark: int
    bytes: int
    segments: int
    last_timestamp: int | None


@dataclass(frozen=True, slots=True)
class OffsetCommit:
    """How far a group has come in a stream: everything below `offset` is done."""

    group: str
    stream: str
    offset: int
    lease: int | None = None
    """Under which lease; None is refused while somebody holds one."""


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    group: str
    stream: str
    offset: int
    high_watermark: int
    lag: int
    """Records from `offset` to the high watermark."""
    term: int
    index: int


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    group: str
    stream: str
    member: str
    lease: int
    """Larger than every lease granted before, so that it fences its predecessors elsewhere too."""
    expires_in_ms: int
    offset: int | None
    """Committed so far: where to go on."""
    high_watermark: int
    term: int
    index: int


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    member: str
    expires_in_ms: int
    """As this node's clock has it. 0: expired, the next one who asks gets it."""


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """A group's place in one stream."""

    group: str
    stream: str
    offset: int | None
    """None: leased, and nothing committed yet."""
    committed_at: int | None
    """Timestamp of the commit, ms since the epoch."""
    log_start_offset: int
    high_watermark: int
    lag: int
    """Records from `offset` to the high watermark, trimmed ones included; of all that are kept, if
    nothing is committed.
    """
    lease: LeaseInfo | None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    name: str
    streams: list[GroupPosition]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Appends and commits that happen all or not at all."""

    appends: list[Append]
    """Their `idempotency_key` is not used: the whole has one."""
    commits: list[OffsetCommit]
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    appends: list[Receipt]
    commits: list[CommitReceipt]
    term: int
    index: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Whole batches that cover the range asked for: the first may begin before `offset`."""

    stream_id: int
    """Another one if the stream was deleted and its name given to a new one."""
    batches: list[Batch]
    log_start_offset: int
    high_watermark: int
    index: int
    """This node's applied index when the read was answered."""
    term: int
    lag_ms: int
    """Milliseconds since this node last heard from the leader; 0 on the leader."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A page of what a search finds."""

    records: list[StoredRecord]
    cursor: str | None
    """Where to go on; None: there is nothing more."""
    coverage: float
    """Share of the stream's records that the index covers on this node, 0 to 1."""
    log_start_offset: int
    high_watermark: int
    index: int
    """This node's applied index when the search began."""
    term: int
    lag_ms: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    id: str
    http: str | None
    """Advertised base URL, as told by the node itself; None until it has been heard from."""
    raft: str
    role: str
    """`voter` or `learner`."""
    state: str
    """`leader`, `follower`, `candidate`, or `unknown` for a node this one cannot speak for."""
    match_index: int | None
    connected: bool
    last_seen_ms: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    cluster_id: str | None
    node: str
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    nodes: list[NodeStatus]
