"""The fast door's frames: appends without HTTP, on the same port. Pure, no I/O.

A client that speaks frames begins with eight bytes that can begin no HTTP request; frames in both
directions follow. Numbers are little-endian.

    preamble  "CUTE" 00 00 01 0a          01: the version
    frame     size        u32             bytes that follow this field
              request_id  u32             chosen by who asks; its answer carries it, in any order
              kind        u8
              payload

    kind  from    payload
    1     node    HELLO    msgpack `Hello`, request_id 0: the node's first frame
    2     client  APPEND   head_size u16 │ head: msgpack `AppendHead` │ batch, to the frame's end:
                           as the body of a POST with `application/vnd.cute.batch`
    3     node    RECEIPT  msgpack `ReceiptAnswer`
    4     node    PROBLEM  msgpack `ProblemAnswer`; request_id 0: it is about the connection, which
                           closes
    5     client  FOLLOW   msgpack `FollowHead`
    6     node    PAGE     head_size u16 │ head: msgpack `PageHead` │ stored batches, as they are in
                           an answer to `Accept: application/vnd.cute.batch`
    7     client  CREDIT   u32: so many bytes of pages more
    8     client  UNFOLLOW nothing

A FOLLOW is answered with pages until a PROBLEM or an UNFOLLOW under its request_id ends it: one at
once, then as records are committed, and an empty one every 2.5 s while there are none. The node
sends while there is credit, so one page may pass it. Trimmed records end it with `offset_trimmed`.
CREDIT and UNFOLLOW for what has ended meanwhile are nobody's fault, and passed over.

A node refuses kinds, versions and members of a head that it does not know; a client passes over
members of answers that it does not know. A node answers appends if it leads, else with the problem
`no_leader` and with `leader` and `leader_http` in it, as far as it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...storage.filesystem import Buffer
from ..http.queries import INTEGER_MAX, Count, Timeout
from ..units import MiB

VERSION: Final = 1
PREAMBLE: Final = b"CUTE\x00\x00\x01\n"
PREAMBLE_BEGIN: Final = PREAMBLE[:6]
"""What all versions begin with."""

HELLO: Final = 1
APPEND: Final = 2
RECEIPT: Final = 3
PROBLEM: Final = 4
FOLLOW: Final = 5
PAGE: Final = 6
CREDIT: Final = 7
UNFOLLOW: Final = 8

CREDIT_MAX: Final = 16 * MiB

FRAME: Final = struct.Struct("<IIB")
"""Size, request id, kind."""
_SIZE_BYTES: Final = 4
SIZE_MIN: Final = FRAME.size - _SIZE_BYTES
_HEAD_SIZE: Final = struct.Struct("<H")
_CREDIT: Final = struct.Struct("<I")


class Hello(msgspec.Struct, frozen=True):
    version: int
    node: str
    leader: str | None
    """The node's id that leads, as far as this one knows."""
    frame_bytes_max: int
    """A larger size closes the connection."""
    requests_max: int
    """The node reads on when fewer are under way."""


class AppendHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an HTTP append has in its path, query and headers."""

    stream: str
    timeout_ms: Timeout
    if_offset: Count | UnsetType = UNSET
    condition: str | UnsetType = msgspec.field(name="if", default=UNSET)
    """The others, as the JSON of the parameter `if`."""
    idempotency_key: str | UnsetType = UNSET


class FollowHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stream: str
    credit: Annotated[int, Meta(ge=1, le=CREDIT_MAX)]
    offset: Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)] | UnsetType = UNSET
    """Where to begin, negative from the end; by default the oldest kept record."""
    after: Count | UnsetType = UNSET
    """Begin when the node has applied this index."""


class PageHead(msgspec.Struct, frozen=True):
    """The page is the records of [offset, next_offset): the first batch may begin before it."""

    offset: int
    next_offset: int
    log_start_offset: int
    high_watermark: int
    lag_ms: int
    node: str
    leader: str | None
    term: int
    index: int


class ReceiptBody(msgspec.Struct, frozen=True):
    """Members as in the answer to an HTTP append."""

    stream: str
    first_offset: int
    last_offset: int
    count: int
    timestamp: int
    term: int
    index: int
    duplicate: bool
    durability: str = "quorum"


class ReceiptAnswer(msgspec.Struct, frozen=True):
    """The members beside the receipt say what an HTTP answer's `Cute-…` headers say."""

    receipt: ReceiptBody
    node: str
    leader: str | None
    term: int
    index: int


class ProblemAnswer(msgspec.Struct, frozen=True):
    problem: dict[str, Any]
    """As in the body of an HTTP answer (RFC 9457)."""
    retry_after_s: int | None
    node: str
    leader: str | None
    term: int
    index: int


class Frame(NamedTuple):
    request_id: int
    kind: int
    payload: bytes


class MalformedFrame(ValueError):
    """What came is no frame: where the next one begins is not known either."""


_encoder: Final = msgspec.msgpack.Encoder()


def frame(kind: int, request_id: int, payload: msgspec.Struct) -> bytes:
    return raw_frame(kind, request_id, _encoder.encode(payload))


def raw_frame(kind: int, request_id: int, payload: bytes) -> bytes:
    return FRAME.pack(SIZE_MIN + len(payload), request_id, kind) + payload


def page_of(head: PageHead, batches: Iterable[Buffer]) -> bytes:
    """Return the payload of a PAGE."""
    packed = _encoder.encode(head)
    return b"".join((_HEAD_SIZE.pack(len(packed)), packed, *batches))


def credit_of(payload: bytes) -> int:
    """Raises MalformedFrame."""
    if len(payload) != _CREDIT.size:
        raise MalformedFrame(f"a CREDIT of {len(payload)} bytes")
    return int(_CREDIT.unpack(payload)[0])


def append_parts(payload: bytes) -> tuple[bytes, bytes]:
    """Return the head and the batch of an APPEND. Raises MalformedFrame."""
    if len(payload) < _HEAD_SIZE.size:
        raise MalformedFrame("an APPEND of less than two bytes")
    start = _HEAD_SIZE.size
    end = start + _HEAD_SIZE.unpack_from(payload)[0]
    if end > len(payload):
        raise MalformedFrame("the head ends behind its frame")
    return payload[start:end], payload[end:]


class FrameReader:
    """Cuts what arrives into frames; holds what has arrived of those that are not taken yet."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._buffer = b""
        self._at = 0
        self._more: list[bytes] = []
        self._more_bytes = 0
        self._skip_bytes = 0

    @property
    def held_bytes(self) -> int:
        return len(self._buffer) - self._at + self._more_bytes

    def feed(self, data: bytes) -> None:
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(data))
            self._skip_bytes -= skipped
            data = data[skipped:]
        if self._at == len(self._buffer) and not self._more:
            self._buffer, self._at = data, 0
        else:
            self._more.append(data)
            self._more_bytes += len(data)

    def next(self) -> Frame | None:
        """Return the next frame, None until it is whole. Raises MalformedFrame."""
        if len(self._buffer) - self._at < FRAME.size:
            if not self._more:
                return None
            self._join()
            if len(self._buffer) < FRAME.size:
                return None
        size, request_id, kind = FRAME.unpack_from(self._buffer, self._at)
        if not SIZE_MIN <= size <= self.size_max:
            wanted = f"{SIZE_MIN} to {self.size_max} bytes are wanted"
            raise MalformedFrame(f"a frame of {size} bytes; {wanted}")
        end = self._at + _SIZE_BYTES + size
        if len(self._buffer) < end:
            if self.held_bytes < _SIZE_BYTES + size:
                return None
            self._join()
            end = _SIZE_BYTES + size
        payload = self._buffer[self._at + FRAME.size : end]
        self._at = end
        if end == len(self._buffer) and not self._more:
            self._buffer, self._at = b"", 0
        return Frame(request_id, kind, payload)

    def _join(self) -> None:
        self._buffer = b"".join((self._buffer[self._at :], *self._more))
        self._at, self._more, self._more_bytes = 0, [], 0

    def skip(self) -> int | None:
        """Pass over the frame of which `next` lacks a part; return its request id.

        None: so little of it is there that nothing is known of it.
        """
        if self.held_bytes < FRAME.size:
            return None
        self._join()
        size, request_id, _ = FRAME.unpack_from(self._buffer)
        self._skip_bytes = _SIZE_BYTES + size - len(self._buffer)
        self._buffer = b""
        return int(request_id)
