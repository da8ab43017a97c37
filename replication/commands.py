"""What a Raft entry asks the state machine to do.

An entry's payload, after its type byte, is a msgpack array of commands; each command is a tagged
array. Fields may be added at the end with a default, so that a newer node reads older entries; tags
are never reused.

Everything apply decides by is in here. `timestamp` is the proposing leader's wall clock in ms:
apply takes the largest seen as log time and never looks at a clock of its own.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from ..storage.batch import BATCH_HEADER_SIZE, BODY_BYTES_MAX
from ..storage.codec import CODEC_NONE
from ..storage.errors import StorageError
from ..storage.index import POSITION_MAX
from ..storage.log_state import Digest
from ..storage.names import SegmentName
from ..storage.wal_frame import NUMBER_MAX, Number

Timestamp: TypeAlias = Annotated[int, Meta(ge=-NUMBER_MAX - 1, le=NUMBER_MAX)]
_Body: TypeAlias = Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]
_Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**32 - 1)]
_Epoch: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Codec: TypeAlias = Annotated[int, Meta(ge=0, le=2**8 - 1)]
"""As wide as their fields in a batch: what is decoded can be applied."""


class BadEntry(StorageError):
    """An entry holds what this version does not understand.

    Its checksum is right, so a newer version wrote it, or a bug. The node stops: to pass over it
    would lead to another state than the other replicas'.
    """


class AppendBatch(msgspec.Struct, frozen=True, array_like=True, tag=1):
    stream: str
    body: _Body
    """Records, packed as `storage.record` does, and then as `codec` says."""
    count: _Count
    record_bytes_max: int
    timestamp: Timestamp
    max_timestamp: Timestamp | None
    if_offset: int | None
    producer: tuple[Number, _Epoch, Number] | None
    """id, epoch, sequence."""
    key: str | None
    """Idempotency key."""
    digest: bytes
    """Of the body before it was compressed: tells a repeat from another batch under the same key or
    sequence, through whichever node it comes.
    """
    codec: _Codec = CODEC_NONE
    keyless: Number = 0
    """Records without a key, which a compacted stream does not take."""


class CreateStream(msgspec.Struct, frozen=True, array_like=True, tag=2):
    name: str
    config: dict[str, int | str | bool]
    timestamp: Timestamp


class DeleteStream(msgspec.Struct, frozen=True, array_like=True, tag=3):
    name: str
    timestamp: Timestamp


class RegisterProducer(msgspec.Struct, frozen=True, array_like=True, tag=4):
    name: str | None
    timestamp: Timestamp


class InitCluster(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """First command of a cluster's life: gives it its id."""

    cluster_id: str
    timestamp: Timestamp


class TrimStream(msgspec.Struct, frozen=True, array_like=True, tag=6):
    name: str
    before: int
    timestamp: Timestamp
    stream_id: int | None = None
    """Trim only this one, not a later stream of the same name."""


class AlterStream(msgspec.Struct, frozen=True, array_like=True, tag=7):
    name: str
    changes: dict[str, int | str | bool]
    """The settings that change; the others stay, whoever else changes them meanwhile."""
    timestamp: Timestamp


class CommitOffset(msgspec.Struct, frozen=True, array_like=True, tag=8):
    group: str
    stream: str
    offset: Number
    lease: Number | None
    timestamp: Timestamp


class AcquireLease(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Take the lease, or renew it."""

    group: str
    stream: str
    member: str
    ttl_ms: Number
    timestamp: Timestamp


class ReleaseLease(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Give the lease back: the one named, or whichever `member` holds."""

    group: str
    stream: str
    lease: Number | None
    member: str | None
    timestamp: Timestamp


class DeleteGroup(msgspec.Struct, frozen=True, array_like=True, tag=11):
    name: str
    timestamp: Timestamp


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """All of it or nothing: the appends in their order, then the commits."""

    appends: list[AppendBatch]
    """Without keys of their own."""
    commits: list[CommitOffset]
    key: str | None
    """Idempotency key of the whole."""
    digest: bytes
    """Of what it does, without its conditions: a repeat may come under a newer lease."""
    timestamp: Timestamp


class CompactedRun(msgspec.Struct, frozen=True, array_like=True):
    """What the leader has made of sealed segments that lie one behind the other.

    Everybody makes the same of the same segments and the mask; the rest is there to tell so.
    """

    inputs: Annotated[list[SegmentName], Meta(min_length=1)]
    end_offset: Number
    """Where the last of them ends."""
    mask: bytes
    """Which of their records stay, packed: `storage.compaction`."""
    size_bytes: Annotated[int, Meta(ge=BATCH_HEADER_SIZE, le=POSITION_MAX)]
    records: Number
    digest: Digest
    """Of the new segment's last batch."""
    bridge: Digest
    """What the batch behind the run carries."""

    @property
    def base_offset(self) -> int:
        return self.inputs[0].base_offset

    @property
    def generation(self) -> int:
        """Of the new segment."""
        return 1 + max(name.generation for name in self.inputs)

    @property
    def name(self) -> SegmentName:
        """Of the new segment."""
        return SegmentName(self.base_offset, self.generation)


class CompactStream(msgspec.Struct, frozen=True, array_like=True, tag=13):
    name: str
    stream_id: Number
    """Only this one, not a later stream of the same name."""
    run: CompactedRun | None
    cleaned_until: Number
    """Not 0: the pass has ended, every key is there once below this offset."""
    timestamp: Timestamp


class CreateIndex(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Give a stream an index, or one that it has another definition."""

    stream: str
    name: str
    kind: str
    on: str
    timestamp: Timestamp


class DropIndex(msgspec.Struct, frozen=True, array_like=True, tag=15):
    stream: str
    name: str
    timestamp: Timestamp


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
    | CompactStream
    | CreateIndex
    | DropIndex
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Command])


def encode_commands(commands: list[Command]) -> bytes:
    return _encoder.encode(commands)


def decode_commands(payload: memoryview) -> list[Command]:
    """Raises BadEntry."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadEntry(f"an entry holds no commands: {error}") from None
