"""Batches as bytes: the one that a client sends, and the stored ones that a read answers.

    header   crc u32 │ magic "CL" │ version u8 │ codec u8 │ size u32 │ count u32 │ span u32
             base_offset u64 │ timestamp i64 │ max_timestamp i64 │ term u64 │ index u64
             producer_id u64 │ producer_epoch u32 │ sequence u64 │ chain 16 bytes
    body     msgpack: [[key, value, headers | nil, timestamp | nil], …]; where compaction left gaps
             (count ≠ span) each row ends with its offset less the base offset

Little-endian. The CRC-32C covers all behind it. Codec 0 is the body as it is, 1 one zstd frame, 2
one lz4 frame; both libraries are imported when they are first needed.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeAlias, cast

import msgspec
from crc32c import crc32c

from .record import NO_HEADERS, Record
from .wire import MalformedAnswer

CODECS = {"zstd": 1, "lz4": 2}
"""By the names that callers use; no compression is codec 0."""
HEADER_SIZE = 96
BARE_ROW_BYTES = 7
"""What a row takes around a value without key, headers and timestamp, give or take two."""
BODY_BYTES_MAX = 16 * 1024 * 1024
"""What a body may unpack to, whatever a frame claims."""

_HEADER = struct.Struct("<IHBBIIIQqqQQQIQ16s")
_MAGIC = int.from_bytes(b"CL", "little")
_VERSION = 1
_NO_PRODUCER = 2**64 - 1
_TINY_BYTES = 64
_INLINE_BYTES_MAX = 256 * 1024
_ZSTD_LEVEL = 3
_ZSTD_WINDOW_LOG_MAX = 23
_LZ4_RATIO_MAX = 255

_PackedRow: TypeAlias = tuple[bytes | None, bytes | None, dict[str, str] | None, int | None]
_SparseRow: TypeAlias = tuple[
    bytes | None, bytes | None, dict[str, str] | None, int | None, int
]  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
# Typed decoding stops at the first byte that does not fit: time and memory go by a body's size,
# whatever lengths it claims.
_decoder = msgspec.msgpack.Decoder(list[_PackedRow])
_sparse_decoder = msgspec.msgpack.Decoder(list[_SparseRow])


# --- sending


class Row(msgspec.Struct, array_like=True, gc=False):
    """A record as it is packed. Where rows are wanted, a value alone stands for itself."""

    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str] | None = None
    timestamp: int | None = None


def row_of(record: Record) -> Row:
    """Return a checked record as a row."""
    return Row(record.key, record.value, record.headers or None, record.timestamp)


def row_size(row: Row) -> int:
    """Return how many bytes `row` takes in a body, give or take ten.

    Raises ValueError for headers that are no Unicode.
    """
    size = BARE_ROW_BYTES + len(row.value or b"")
    if row.key is not None:
        size += 1 + len(row.key)
    if row.headers is not None:
        size += len(_encoder.encode(row.headers)) - 1
    if row.timestamp is not None:
        size += 8
    return size


@dataclass(frozen=True, slots=True)
class Packed:
    """The records of one append, ready for a header."""

    body: bytes
    codec: int
    count: int
    max_timestamp: int
    """0 if no record carries a timestamp."""

    def with_stamp(self, producer: tuple[int, int, int] | None = None) -> bytes:
        """Return the batch to send; `producer` is (id, epoch, sequence)."""
        size = HEADER_SIZE + len(self.body)
        lead = (0, _MAGIC, _VERSION, self.codec, size, self.count, self.count)
        stamp = producer or (_NO_PRODUCER, 0, 0)
        header = _HEADER.pack(*lead, 0, 0, self.max_timestamp, 0, 0, *stamp, bytes(16))
        crc = crc32c(self.body, crc32c(header[4:]))
        return b"".join((crc.to_bytes(4, "little"), header[4:], self.body))


def pack_rows(rows: Sequence[Row | bytes], compression: str | None = None) -> Packed:
    """Return rows as one body, compressed if that makes it smaller."""
    max_timestamp = 0
    if set(map(type, rows)) == {bytes}:
        whole = [*map(Row, repeat(None), cast("Sequence[bytes]", rows))]
    else:
        whole = [row if isinstance(row, Row) else Row(None, row) for row in rows]
        stamps = [row.timestamp for row in whole if row.timestamp is not None]
        max_timestamp = max(stamps, default=0)
    packed = Packed(_encoder.encode(whole), 0, len(rows), max_timestamp)
    return packed if compression is None else _compressed(packed, CODECS[compression])


async def pack_rows_aside(rows: Sequence[Row | bytes], compression: str | None) -> Packed:
    """Do what `pack_rows` does, on another thread if compressing may take some milliseconds."""
    packed = pack_rows(rows)
    if compression is None:
        return packed
    if len(packed.body) > _INLINE_BYTES_MAX:
        return await asyncio.to_thread(_compressed, packed, CODECS[compression])
    return _compressed(packed, CODECS[compression])


def _compressed(packed: Packed, codec: int) -> Packed:
    body = packed.body
    if len(body) < _TINY_BYTES:
        return packed
    smaller = _zstd().compress(body, _ZSTD_LEVEL) if codec == 1 else _lz4().compress(body)
    return packed if len(smaller) >= len(body) else replace(packed, body=smaller, codec=codec)


# --- reading


@dataclass(slots=True)
class Cut:
    """What of an answer's batches is wanted: the records of [start, end), and how many."""

    start: int
    end: int
    limit: int | None
    """None: all records of the batches."""
    bytes_max: int
    """Unpacked; at least one batch is looked at."""


def records_in(batches: bytes, cut: Cut) -> tuple[list[Record], int]:
    """Return the records wanted of the batches, and the offset to go on from.

    Raises MalformedAnswer.
    """
    records: list[Record] = []
    next_offset, position, looked_at = cut.start, 0, 0
    view = memoryview(batches)
    limit = len(view) if cut.limit is None else cut.limit
    while position < len(view) and len(records) < limit:
        try:
            header = _HEADER.unpack_from(view, position)
        except struct.error as error:
            raise MalformedAnswer("the batches end early") from error
        data = view[position : position + header[4]]
        _check(header, data)
        body = _unpacked(header[3], data[HEADER_SIZE:])
        if looked_at and looked_at + len(body) > cut.bytes_max:
            return records, next_offset
        looked_at += len(body)
        position += header[4]
        records += _wanted(header, body, cut)
        next_offset = min(header[7] + header[6], cut.end)
    if len(records) > limit:
        first_left = records[limit].offset
        assert first_left is not None
        next_offset = first_left
        del records[limit:]
    return records, next_offset


def _check(header: tuple[Any, ...], data: memoryview) -> None:
    crc, magic, version, _, size = header[:5]
    if (magic, version) != (_MAGIC, _VERSION) or not HEADER_SIZE <= size == len(data):
        raise MalformedAnswer(f"no whole batch: magic {magic:#06x}, version {version}")
    if crc32c(data[4:]) != crc:
        raise MalformedAnswer("a batch's checksum is wrong")


def _wanted(header: tuple[Any, ...], body: bytes | memoryview, cut: Cut) -> Iterable[Record]:
    count, span, base, timestamp = header[5:9]
    try:
        if count == span:
            rows = _decoder.decode(body)
            offsets: Sequence[int] = range(base, base + span)
        else:
            sparse = _sparse_decoder.decode(body)
            rows, offsets = [row[:4] for row in sparse], [base + row[4] for row in sparse]
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedAnswer(f"no records: {error}") from error
    if len(rows) != count:
        raise MalformedAnswer(f"{len(rows)} records where a batch says {count}")
    if base < cut.start or base + span > cut.end:
        kept = [at for at, offset in enumerate(offsets) if cut.start <= offset < cut.end]
        offsets, rows = [offsets[at] for at in kept], [rows[at] for at in kept]
    return [
        Record(value, key, headers or NO_HEADERS, timestamp if own is None else own, offset)
        for (key, value, headers, own), offset in zip(rows, offsets, strict=True)
    ]


# --- codecs


def _unpacked(codec: int, body: memoryview) -> bytes | memoryview:
    if codec == 0:
        return body
    if codec not in (1, 2):
        raise MalformedAnswer(f"codec {codec} is not known to this client")
    make, failures = _DECOMPRESSORS[codec]()
    plain_max = BODY_BYTES_MAX if codec == 1 else min(BODY_BYTES_MAX, _LZ4_RATIO_MAX * len(body))
    try:
        decompressor = make()
        plain: bytes = decompressor.decompress(body, plain_max)
    except failures as error:
        raise MalformedAnswer(f"a batch's body: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedAnswer("a batch's body is not one whole frame")
    return plain


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _lz4() -> Any:
    import lz4.frame  # type: ignore[import-untyped]  # it ships no types

    return lz4.frame


def _zstd_decompressor() -> tuple[Callable[[], Any], type[Exception]]:
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _lz4_decompressor() -> tuple[Callable[[], Any], type[Exception]]:
    return _lz4().LZ4FrameDecompressor, RuntimeError


_DECOMPRESSORS = {1: _zstd_decompressor, 2: _lz4_decompressor}
