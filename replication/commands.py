"""What a Raft entry asks the state machine to do.

An entry's payload, after its type byte, is a msgpack array of commands; each command is a tagged
array. Fields may be added at the end with a default, so that a newer node reads older entries; tags
are never reused.

Everything apply decides by is in here. `timestamp` is the proposing leader's wall clock in ms:
apply takes the largest seen as log time and never looks at a clock of its own.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class AppendBatch(msgspec.Struct, frozen=True, array_like=True, tag=1):
    stream: str
    body: bytes
    """Records, packed as `storage.record` does."""
    count: int
    record_bytes_max: int
    timestamp: int
    max_timestamp: int | None
    if_offset: int | None
    producer: tuple[int, int, int] | None
    """id, epoch, sequence."""
    key: str | None
    """Idempotency key."""
    digest: bytes
    """Of the body: tells a repeat from another batch under the same key or sequence."""


class CreateStream(msgspec.Struct, frozen=True, array_like=True, tag=2):
    name: str
    config: dict[str, int | str | bool]
    timestamp: int


class DeleteStream(msgspec.Struct, frozen=True, array_like=True, tag=3):
    name: str
    timestamp: int


class RegisterProducer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    name: str | None
    timestamp: int


class InitCluster(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """First command of a cluster's life: gives it its id."""

    cluster_id: str
    timestamp: int


class TrimStream(msgspec.Struct, frozen=True, array_like=True, tag=6):
    name: str
    before: int
    timestamp: int
    stream_id: int | None = None
    """Trim only this one, not a later stream of the same name."""


class AlterStream(msgspec.Struct, frozen=True, array_like=True, tag=7):
    name: str
    changes: dict[str, int | str | bool]
    """The settings that change; the others stay, whoever else changes them meanwhile."""
    timestamp: int


class CommitOffset(msgspec.Struct, frozen=True, array_like=True, tag=8):
    group: str
    stream: str
    offset: int
    lease: int | None
    timestamp: int


class AcquireLease(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Take the lease, or renew it."""

    group: str
    stream: str
    member: str
    ttl_ms: int
    timestamp: int


class ReleaseLease(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Give the lease back: the one named, or whichever `member` holds."""

    group: str
    stream: str
    lease: int | None
    member: str | None
    timestamp: int


class DeleteGroup(msgspec.Struct, frozen=True, array_like=True, tag=11):
    name: str
    timestamp: int


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """All of it or nothing: the appends in their order, then the commits."""

    appends: list[AppendBatch]
    """Without keys of their own."""
    commits: list[CommitOffset]
    key: str | None
    """Idempotency key of the whole."""
    digest: bytes
    """Of what it does, without its conditions: a repeat may come under a newer lease."""
    timestamp: int


Command: TypeAlias = (
    AppendBatch
    | CreateStream
    | DeleteStream
    | RegisterProducer
    | InitCluster
    | TrimStream
    | AlterStream
    | CommitOffset
    | AcquireLease
    | ReleaseLease
    | DeleteGroup
    | Transact
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Command])


def encode_commands(commands: list[Command]) -> bytes:
    return _encoder.encode(commands)


def decode_commands(payload: memoryview) -> list[Command]:
    return _decoder.decode(payload)
