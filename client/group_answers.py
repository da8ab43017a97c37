"""What the cluster answers about consumer groups, and what a transaction is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .answers import Receipt, members_of, receipt_from
from .record import Record


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit for a group in a stream, until somebody else gets it."""

    group: str
    stream: str
    member: str
    number: int
    """Larger than that of every lease granted before: it fences them in other systems, too."""
    expires_in_ms: int
    """Counted from when it was granted: renew it before, by asking again."""
    offset: int | None
    """What the group has committed: where to go on."""
    index: int


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    group: str
    stream: str
    offset: int
    high_watermark: int
    lag: int
    """Records from `offset` to the high watermark."""
    index: int


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    member: str
    expires_in_ms: int
    """0: expired, and nobody else has asked for it."""


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """A group's place in one stream."""

    stream: str
    offset: int | None
    """None: leased, and nothing committed yet."""
    committed_at: int | None
    """ms since the epoch."""
    log_start_offset: int
    high_watermark: int
    lag: int
    lease: LeaseInfo | None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    name: str
    streams: list[GroupPosition]


@dataclass(frozen=True, slots=True)
class TxAppend:
    """One atomic batch of a transaction."""

    stream: str
    records: Record | bytes | str | list[Record | bytes | str]
    if_offset: int | None = None
    """Only if the stream's next offset is this one, the transaction's earlier appends counted."""


@dataclass(frozen=True, slots=True)
class TxCommit:
    """How far a group has come, once the transaction is done."""

    group: str
    stream: str
    offset: int
    lease: Lease | int | None = None


@dataclass(frozen=True, slots=True)
class TxReceipt:
    appends: list[Receipt]
    commits: list[CommitReceipt]
    index: int
    duplicate: bool
    """True if it had been done before and these are the first receipts again."""


def lease_from(shape: Any) -> Lease:
    """Raises MalformedAnswer, as all functions here do."""
    members = members_of(shape)
    return Lease(
        group=members["group"],
        stream=members["stream"],
        member=members["member"],
        number=members["lease"],
        expires_in_ms=members["expires_in_ms"],
        offset=members.get("offset"),
        index=members["index"],
    )


def commit_receipt_from(shape: Any) -> CommitReceipt:
    members = members_of(shape)
    return CommitReceipt(
        group=members["group"],
        stream=members["stream"],
        offset=members["offset"],
        high_watermark=members["high_watermark"],
        lag=members["lag"],
        index=members["index"],
    )


def position_from(shape: Any) -> GroupPosition:
    members = members_of(shape)
    lease = members.get("lease")
    return GroupPosition(
        stream=members["stream"],
        offset=members["offset"],
        committed_at=members.get("committed_at"),
        log_start_offset=members["log_start_offset"],
        high_watermark=members["high_watermark"],
        lag=members["lag"],
        lease=None if lease is None else _lease_info_from(lease),
    )


def _lease_info_from(shape: Any) -> LeaseInfo:
    members = members_of(shape)
    return LeaseInfo(member=members["member"], expires_in_ms=members["expires_in_ms"])


def group_from(shape: Any) -> GroupInfo:
    members = members_of(shape)
    return GroupInfo(members["name"], [position_from(each) for each in members["streams"]])


def groups_from(shape: Any) -> list[GroupInfo]:
    return [group_from(group) for group in members_of(shape)["groups"]]


def tx_receipt_from(shape: Any) -> TxReceipt:
    members = members_of(shape)
    return TxReceipt(
        appends=[receipt_from(each) for each in members["appends"]],
        commits=[commit_receipt_from(each) for each in members["commits"]],
        index=members["index"],
        duplicate=members["duplicate"],
    )
