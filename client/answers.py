"""What the cluster answers, as values. Members this version does not know are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .batch_format import Cut, records_in
from .record import Record
from .wire import INDEX_HEADER, TERM_HEADER, MalformedAnswer, record_from

READ_BYTES = 1024 * 1024
"""What a node looks at for one answer if not told otherwise."""


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
    """Number of the Raft entry: a session token for reads at any node."""
    duplicate: bool
    """True if the batch had been appended before and this is the first receipt again."""
    durability: str
    """`quorum`: on disk on a majority."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a read."""

    stream: str
    records: list[Record]
    next_offset: int
    """Where to read on."""
    log_start_offset: int
    high_watermark: int
    index: int
    term: int
    lag_ms: int
    """Milliseconds since the node that answered heard from the leader."""
    why: str | None = None
    """Why there are no records."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    name: str
    config: Mapping[str, int | str | bool]
    log_start_offset: int
    high_watermark: int
    bytes: int
    segments: int
    last_timestamp: int | None


@dataclass(frozen=True, slots=True)
class NodeInfo:
    id: str
    http: str | None
    """Base URL the node advertises; None until it has been heard from."""
    raft: str | None
    role: str
    state: str
    match_index: int | None
    connected: bool
    last_seen_ms: int | None


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    cluster_id: str | None
    node: str
    """Id of the node that answered."""
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    nodes: list[NodeInfo]


def receipt_from(shape: Any) -> Receipt:
    """Raises MalformedAnswer, as all functions here do."""
    if isinstance(shape, Receipt):
        return shape
    members = members_of(shape)
    return Receipt(
        stream=members["stream"],
        first_offset=members["first_offset"],
        last_offset=members["last_offset"],
        count=members["count"],
        timestamp=members["timestamp"],
        term=members["term"],
        index=members["index"],
        duplicate=members["duplicate"],
        durability=members.get("durability", "quorum"),
    )


@dataclass(frozen=True, slots=True)
class StoredBatches:
    """An answer of stored batches as they are; what else JSON says is in its headers."""

    headers: Mapping[str, str]
    body: bytes

    def number(self, name: str) -> int:
        try:
            return int(self.headers[name])
        except (KeyError, ValueError) as error:
            raise MalformedAnswer(f"the answer lacks the header {name}") from error


def page_from(
    shape: Any, *, stream: str, limit: int | None = None, bytes_max: int | None = None
) -> Page:
    """Return a page; of batches with more than `limit` records, or `bytes_max`, only so much."""
    if isinstance(shape, StoredBatches):
        return _page_from_batches(shape, stream, limit, bytes_max)
    members = members_of(shape)
    return Page(
        stream=members["stream"],
        records=[record_from(record) for record in members["records"]],
        next_offset=members["next_offset"],
        log_start_offset=members["log_start_offset"],
        high_watermark=members["high_watermark"],
        index=members["index"],
        term=members["term"],
        lag_ms=members["lag_ms"],
        why=members.get("why"),
    )


def _page_from_batches(
    answer: StoredBatches, stream: str, limit: int | None, bytes_max: int | None
) -> Page:
    cut = Cut(
        answer.number("Cute-Offset"),
        answer.number("Cute-Next-Offset"),
        limit,
        bytes_max or READ_BYTES,
    )
    records, next_offset = records_in(answer.body, cut)
    return Page(
        stream=stream,
        records=records,
        next_offset=next_offset if answer.body else cut.end,
        log_start_offset=answer.number("Cute-Log-Start-Offset"),
        high_watermark=answer.number("Cute-High-Watermark"),
        index=answer.number(INDEX_HEADER),
        term=answer.number(TERM_HEADER),
        lag_ms=answer.number("Cute-Lag-Ms"),
        why=answer.headers.get("Cute-Why"),
    )


def stream_info_from(shape: Any) -> StreamInfo:
    members = members_of(shape)
    return StreamInfo(
        name=members["name"],
        config=members["config"],
        log_start_offset=members["log_start_offset"],
        high_watermark=members["high_watermark"],
        bytes=members["bytes"],
        segments=members["segments"],
        last_timestamp=members.get("last_timestamp"),
    )


def streams_from(shape: Any) -> list[StreamInfo]:
    return [stream_info_from(stream) for stream in members_of(shape)["streams"]]


def log_start_from(shape: Any) -> int:
    offset: int = members_of(shape)["log_start_offset"]
    return offset


def producer_from(shape: Any) -> tuple[int, int]:
    """Return a producer's id and epoch."""
    members = members_of(shape)
    return members["id"], members["epoch"]


def leader_from(shape: Any) -> str:
    leader: str = members_of(shape)["leader"]
    return leader


def cluster_from(shape: Any) -> ClusterInfo:
    members = members_of(shape)
    return ClusterInfo(
        cluster_id=members.get("cluster_id"),
        node=members["node"],
        leader=members.get("leader"),
        term=members["term"],
        commit_index=members["commit_index"],
        applied_index=members["applied_index"],
        nodes=[node_from(node) for node in members["nodes"]],
    )


def node_from(shape: Any) -> NodeInfo:
    members = members_of(shape)
    return NodeInfo(
        id=members["id"],
        http=members.get("http"),
        raft=members.get("raft"),
        role=members["role"],
        state=members["state"],
        match_index=members.get("match_index"),
        connected=members["connected"],
        last_seen_ms=members.get("last_seen_ms"),
    )


class _Members(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise MalformedAnswer(f"the answer lacks {name}")


def members_of(shape: Any) -> _Members:
    """Return the members of an answer; asking for one it lacks raises MalformedAnswer."""
    if not isinstance(shape, dict):
        raise MalformedAnswer(f"an object is wanted, not {type(shape).__name__}")
    return _Members(shape)
