"""What nodes say to each other, and the frame that carries it.

A frame is little-endian:

    0   4   size of the message, bytes
    4   8   xxh3-64 of the message
    12      the message: msgpack, a tagged array (one of the classes below)

The size is checked against `FRAME_BYTES_MAX` before anything is allocated, the digest before
anything is decoded, and decoding checks every type, so that a stranger at the port can only have
its connection closed. Numbers are as large as files and logs can have them, and never negative.
"""

from __future__ import annotations

import struct
from typing import TypeAlias, cast

import msgspec
import xxhash

from ..storage.wal import Entry
from ..storage.wal_frame import Number
from .config import Port

FRAME_BYTES_MAX = 64 << 20
FRAME_HEAD = struct.Struct("<IQ")
PROTOCOL = 3


class BadFrame(Exception):
    """The peer sent something that is not a frame of ours: its connection is closed."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First frame of every connection: who dials, and where its HTTP server is."""

    protocol: int
    node: str
    cluster_id: str | None
    http_url: str | None
    incarnation: str
    """Of the sender's data folder."""
    raft: tuple[str, Port]
    """Where to dial back."""
    members_index: Number
    """Index of the newest list of members in its log."""
    target: str
    """Whom the sender means to speak with; addresses may be out of date."""


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """The only frame that goes back: the one who was dialled does not speak with the dialler."""

    reason: str
    is_stranger: bool
    """The dialler is not a member, or not any more."""


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Raft's AppendEntries. `sequence` numbers the leader's messages; the reply echoes it."""

    term: Number
    sequence: Number
    commit_index: Number
    prev_index: Number
    prev_term: Number
    entries: list[Entry]
    """On the way out a `msgspec.Raw`, see `pack_entries`; on arrival the list."""


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`next_index`: on success the entry after the last one verified, else where to go on."""

    term: Number
    sequence: Number
    next_index: Number
    success: bool
    is_short: bool = False
    """The follower's disk has little room left …"""
    is_full: bool = False
    """… or none: it takes no entries."""


class CommitNotice(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """What the leader has committed, when it has nothing else to send. Nobody answers it.

    `commit_term` is the term of entry `commit_index`: who has that entry with that term has all
    before it, too (Raft's log matching property).
    """

    term: Number
    commit_index: Number
    commit_term: Number


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """A follower whose AppendReply waits for its disk is there all the same. Promises nothing."""

    term: Number


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=3):
    term: Number
    last_index: Number
    last_term: Number
    transfer: bool
    """The leader itself asked for this election: a fresh leader is no reason to refuse."""
    voter: str | None
    """The incarnation whose vote is asked for; None if the candidate's log names no members."""


class Vote(msgspec.Struct, frozen=True, array_like=True, tag=4):
    term: Number


class PreVoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Would you vote for me? Asked before the term is raised (Ongaro's thesis, section 9.6)."""

    term: Number
    round: Number
    last_index: Number
    last_term: Number
    voter: str | None
    """As in VoteRequest."""


class PreVoteReply(msgspec.Struct, frozen=True, array_like=True, tag=6):
    term: Number
    round: Number
    granted: bool


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The leader hands leadership over (thesis, section 3.10)."""

    term: Number


class ReadIndexRequest(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """A follower asks the leader for an index that covers everything acknowledged so far."""

    request: Number


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag=9):
    request: Number
    index: Number | None
    """None: the node asked does not lead, or lost its leadership meanwhile."""


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Sent instead of AppendEntries to a follower whose next entry the log does not hold any more.

    It counts as a heartbeat. `index` and `index_term` name the newest entry the snapshot covers,
    `size` is that of its checkpoint in bytes.
    """

    term: Number
    sequence: Number
    index: Number
    index_term: Number
    size: Number


class SnapshotRead(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """A follower asks for bytes of the snapshot at `index`: of a segment, or of the checkpoint."""

    request: Number
    index: Number
    stream_id: Number | None
    """None: the checkpoint itself."""
    base_offset: Number
    position: Number
    length: Number
    generation: Number = 0
    """Of the segment."""


class SnapshotData(msgspec.Struct, frozen=True, array_like=True, tag=12):
    request: Number
    data: bytes | None
    """None: this snapshot is gone; the next offer names another."""


class RepairRead(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """A node whose own bytes are damaged asks for batches of a stream, from `offset` on."""

    request: Number
    stream_id: Number
    offset: Number
    bytes_max: Number
    generation: Number = 0
    """Of the segment: batches of another one are of no use."""


class RepairData(msgspec.Struct, frozen=True, array_like=True, tag=15):
    request: Number
    data: bytes | None
    """Whole batches as they lie in the segment, one at least; None: they are not here, or damaged
    here too."""


Message: TypeAlias = (
    Hello
    | AppendEntries
    | AppendReply
    | CommitNotice
    | Alive
    | VoteRequest
    | Vote
    | PreVoteRequest
    | PreVoteReply
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexReply
    | SnapshotOffer
    | SnapshotRead
    | SnapshotData
    | RepairRead
    | RepairData
    | Refusal
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def pack_entries(entries: list[Entry]) -> list[Entry]:
    """Pack `entries` once; the result goes into the AppendEntries of every follower."""
    return cast("list[Entry]", msgspec.Raw(_encoder.encode(entries)))


def encode_frame(message: Message) -> tuple[bytes, bytes]:
    """Head and body of the frame that carries `message`."""
    body = _encoder.encode(message)
    return FRAME_HEAD.pack(len(body), xxhash.xxh3_64_intdigest(body)), body


def decode_message(body: memoryview, digest: int) -> Message:
    """The message in a frame's body; BadFrame if the digest or a type is wrong."""
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise BadFrame("the digest does not match")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(str(error)) from None
