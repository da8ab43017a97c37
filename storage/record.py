"""A record, and the bytes that a batch's records become.

A body is one msgpack array with an array of four per record, so that a reader needs no schema:

    [ [key: bin | nil, value: bin | nil, headers: {str: str} | nil, timestamp: int | nil], … ]

The offsets of a batch's records ascend by one from its base offset on. If compaction has removed
some of them (`span` ≠ `count` in the header), each record says where it is: an array of five, whose
last is its offset less the base offset.

    [ [key, value, headers, timestamp, delta: int], … ]

Empty headers are nil. A record takes five bytes at least. Decoding is typed: it stops at the first
byte that does not fit, so a body costs time and memory by its size, whatever lengths it claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import msgspec

from .errors import CorruptBatch
from .filesystem import Buffer

_Timestamp: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Delta: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Row: TypeAlias = tuple[bytes | None, bytes | None, dict[str, str] | None, _Timestamp | None]
"""Key, value, headers, timestamp."""
SparseRow: TypeAlias = tuple[
    bytes | None, bytes | None, dict[str, str] | None, _Timestamp | None, _Delta
]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Row])
_sparse_decoder = msgspec.msgpack.Decoder(list[SparseRow])


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a client appends.

    Like `StoredRecord` a msgspec struct: millions are made, and a frozen dataclass takes ten times
    as long to make.
    """

    value: bytes | None
    """None is a tombstone: it deletes the key where a stream is compacted."""
    key: bytes | None = None
    headers: Mapping[str, str] = {}
    timestamp: int | None = None
    """The client's own, ms since the epoch."""


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record in its place in the log."""

    offset: int
    timestamp: int
    """ms since the epoch: the record's own if it had one, else that of its batch."""
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]


def encode_records(records: Sequence[Record]) -> bytes:
    """Return the body of a batch; equal records give equal bytes."""
    return _encoder.encode(
        [(record.key, record.value, record.headers or None, record.timestamp) for record in records]
    )


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Return the body that `encode_records` makes of these records."""
    return _encoder.encode(
        [(key, value, headers or None, timestamp) for key, value, headers, timestamp in rows]
    )


def encode_sparse_rows(rows: Sequence[SparseRow]) -> bytes:
    """Return the body of a batch whose records do not follow each other without a hole."""
    return _encoder.encode([(row[0], row[1], row[2] or None, row[3], row[4]) for row in rows])


def decode_rows(body: Buffer) -> list[Row]:
    """Return (key, value, headers, timestamp) of every record in `body`.

    Raises CorruptBatch for anything that is not exactly such an array.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptBatch(None, 0, f"records: {error}") from error


def decode_sparse_rows(body: Buffer, span: int) -> list[SparseRow]:
    """Return the same with each record's offset less that of the batch, which covers `span`.

    Raises CorruptBatch, also if the offsets do not ascend or pass the batch's end.
    """
    try:
        rows = _sparse_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptBatch(None, 0, f"records: {error}") from error
    before = -1
    for row in rows:
        if not before < row[4] < span:
            raise CorruptBatch(None, 0, f"records: offset {row[4]} of {span} behind {before}")
        before = row[4]
    return rows


def decode_records(body: Buffer) -> list[Record]:
    """Return the records of a body, or raise CorruptBatch."""
    return [
        Record(value, key, headers or {}, timestamp)
        for key, value, headers, timestamp in decode_rows(body)
    ]


def record_size(record: Record) -> int:
    """Return the bytes of key, value and headers (as UTF-8), the size that limits speak of."""
    return row_size((record.key, record.value, record.headers, None))


def row_size(row: tuple[bytes | None, bytes | None, Mapping[str, str] | None, int | None]) -> int:
    """Return what `record_size` does of a record in pieces."""
    key, value, headers, _ = row
    size = len(key or b"") + len(value or b"")
    if headers:
        for name, text in headers.items():
            size += len(name.encode()) + len(text.encode())
    return size
