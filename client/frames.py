"""The fast door's frames as a client writes and reads them; `node/door/frames.py` draws them.

Pure, no I/O. Members of answers that this version does not know are passed over.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

PREAMBLE: Final = b"CUTE\x00\x00\x01\n"

HELLO: Final = 1
APPEND: Final = 2
RECEIPT: Final = 3
PROBLEM: Final = 4
FOLLOW: Final = 5
PAGE: Final = 6
CREDIT: Final = 7
UNFOLLOW: Final = 8

ANSWER_BYTES_MAX: Final = 17 << 20
"""One stored batch may take 16 MiB."""

_FRAME: Final = struct.Struct("<IIB")
_SIZE_BYTES: Final = 4
_SIZE_MIN: Final = _FRAME.size - _SIZE_BYTES
_APPEND: Final = struct.Struct("<IIBH")
_HEAD_SIZE: Final = struct.Struct("<H")
_CREDIT: Final = struct.Struct("<IIBI")


class Hello(msgspec.Struct, frozen=True):
    version: int
    node: str
    leader: str | None


class AppendHead(msgspec.Struct, frozen=True, omit_defaults=True):
    stream: str
    timeout_ms: int
    if_offset: int | UnsetType = UNSET
    condition: str | UnsetType = msgspec.field(name="if", default=UNSET)
    """As JSON."""
    idempotency_key: str | UnsetType = UNSET


class FollowHead(msgspec.Struct, frozen=True, omit_defaults=True):
    stream: str
    credit: int
    offset: int | UnsetType = UNSET
    after: int | UnsetType = UNSET


class PageHead(msgspec.Struct, frozen=True):
    offset: int
    next_offset: int
    log_start_offset: int
    high_watermark: int
    lag_ms: int
    leader: str | None
    term: int
    index: int


class ReceiptBody(msgspec.Struct, frozen=True):
    stream: str
    first_offset: int
    last_offset: int
    count: int
    timestamp: int
    term: int
    index: int
    duplicate: bool
    durability: str


class ReceiptAnswer(msgspec.Struct, frozen=True):
    receipt: ReceiptBody
    leader: str | None
    term: int


class ProblemAnswer(msgspec.Struct, frozen=True):
    problem: dict[str, Any]
    """RFC 9457."""
    retry_after_s: int | None
    leader: str | None
    term: int


class Frame(NamedTuple):
    request_id: int
    kind: int
    payload: bytes


class MalformedFrame(ValueError):
    """What came is no frame: where the next one begins is not known either."""


_encoder: Final = msgspec.msgpack.Encoder()


def append_frame(request_id: int, head: bytes, batch: bytes) -> bytes:
    """Return an APPEND; `head` is an `AppendHead` as `packed_head` packs it."""
    size = _APPEND.size - _SIZE_BYTES + len(head) + len(batch)
    return b"".join((_APPEND.pack(size, request_id, APPEND, len(head)), head, batch))


def packed_head(head: AppendHead) -> bytes:
    return _encoder.encode(head)


def follow_frame(request_id: int, head: FollowHead) -> bytes:
    packed = _encoder.encode(head)
    return _FRAME.pack(_SIZE_MIN + len(packed), request_id, FOLLOW) + packed


def credit_frame(request_id: int, credit: int) -> bytes:
    return _CREDIT.pack(_CREDIT.size - _SIZE_BYTES, request_id, CREDIT, credit)


def unfollow_frame(request_id: int) -> bytes:
    return _FRAME.pack(_SIZE_MIN, request_id, UNFOLLOW)


def missing_bytes(data: bytes) -> int:
    """Return how many bytes at least the frame that `data` begins with lacks."""
    if len(data) < _SIZE_BYTES:
        return 1
    return _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "little") - len(data)


_page_decoder: Final = msgspec.msgpack.Decoder(PageHead)


def page_parts(payload: bytes) -> tuple[PageHead, bytes]:
    """Return the head and the batches of a PAGE. Raises MalformedFrame."""
    try:
        start = _HEAD_SIZE.size
        end = start + _HEAD_SIZE.unpack_from(payload)[0]
        return _page_decoder.decode(payload[start:end]), payload[end:]
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedFrame(f"no page: {error}") from error


def frames_in(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames that `data` begins with, and the rest. Raises MalformedFrame."""
    frames, at = [], 0
    while len(data) - at >= _FRAME.size:
        size, request_id, kind = _FRAME.unpack_from(data, at)
        if not _SIZE_MIN <= size <= ANSWER_BYTES_MAX:
            raise MalformedFrame(f"a frame of {size} bytes")
        end = at + _SIZE_BYTES + size
        if end > len(data):
            break
        frames.append(Frame(request_id, kind, data[at + _FRAME.size : end]))
        at = end
    return frames, data[at:]
