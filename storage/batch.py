"""A batch: the records of one append, as they lie on disk and travel to peers and readers.

A header of 96 bytes, little-endian, and the body behind it (`record.py`). Nothing in a batch is
rewritten after it was built, so the checksum covers everything but itself.

    byte  size  field
       0     4  crc             CRC-32C of bytes 4 … size
       4     2  magic           "CL"
       6     1  version         1
       7     1  codec           of the body: 0 none, 1 zstd, 2 lz4 (codec.py)
       8     4  size            bytes of the whole batch, header included
      12     4  count           records in the body
      16     4  span            offsets covered: the next batch begins at base_offset + span
      20     8  base_offset     offset of the first record
      28     8  timestamp       when the leader took it, ms since the epoch; signed
      36     8  max_timestamp   largest record timestamp, ms since the epoch; signed
      44     8  term            Raft term, 0 outside of a cluster
      52     8  index           Raft index, 0 outside of a cluster
      60     8  producer_id     2**64 - 1: none
      68     4  producer_epoch
      72     8  sequence        of the producer's batches in this stream, from 0
      80    16  chain           XXH3-128 of the whole previous batch, zeros for the first
      96     …  body, compressed or not

`span` equals `count` unless compaction removed records that were in the range: it makes batches
anew, from what is left of one or of several, and such a batch may be without any record.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from crc32c import crc32c
from xxhash import xxh3_128_digest

from .codec import CODEC_NONE, unpack
from .errors import CorruptBatch, IncompleteBatch
from .filesystem import Buffer
from .packed_rows import PackedRows
from .record import Row, StoredRecord, decode_rows, decode_sparse_rows

BATCH_HEADER_SIZE: Final = 96
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""No batch is larger, and a header that claims more is corrupt."""
BODY_BYTES_MAX: Final = BATCH_BYTES_MAX - BATCH_HEADER_SIZE
"""Of a body, compressed or not: what it unpacks to is no larger either."""
NO_PRODUCER: Final = 2**64 - 1
CHAIN_START: Final = bytes(16)

MAGIC: Final = int.from_bytes(b"CL", "little")
VERSION: Final = 1

_CRC = struct.Struct("<I")
_REST = struct.Struct("<HBBIIIQqqQQQIQ16s")
_HEADER = struct.Struct("<IHBBIIIQqqQQQIQ16s")
assert _HEADER.size == BATCH_HEADER_SIZE == _CRC.size + _REST.size


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The header's fields, and the bytes they were read from.

    A msgspec struct because a reader makes one per batch: a frozen dataclass of 17 fields costs
    four times as much as all the rest of reading a small batch's header.
    """

    crc: int
    magic: int
    version: int
    codec: int
    size: int
    count: int
    span: int
    base_offset: int
    timestamp: int
    max_timestamp: int
    term: int
    index: int
    producer_id: int
    producer_epoch: int
    sequence: int
    chain: bytes
    data: bytes | memoryview
    """Header and body, or only the header where it says so. A view keeps alive what it views."""

    @property
    def body(self) -> memoryview:
        return memoryview(self.data)[BATCH_HEADER_SIZE:]

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.span

    @property
    def is_dense(self) -> bool:
        """Is there a record at each of its offsets?"""
        return self.count == self.span

    def unpacked(self, bytes_max: int = BODY_BYTES_MAX) -> Buffer:
        """Return the body as it was before it was compressed. Raises CorruptBatch.

        UnpacksTooLarge, one of these, tells that it would be more than `bytes_max`.
        """
        return unpack(self.codec, self.body, bytes_max)

    def records(self, unpacked: Buffer | None = None) -> list[StoredRecord]:
        """Decode the body; raises CorruptBatch if it is not what the header says.

        `unpacked` is for who has unpacked it already.
        """
        offsets, rows = self.rows(unpacked)
        return [
            StoredRecord(offset, self.timestamp if own is None else own, key, value, headers or {})
            for offset, (key, value, headers, own) in zip(offsets, rows, strict=True)
        ]

    def records_from(
        self, offset: int, unpacked: Buffer | None = None, *, few: bool = False
    ) -> Iterator[StoredRecord]:
        """Yield the records at and behind `offset`. Raises as above.

        With `few` each is decoded when it is asked for, and what is wrong behind it is not noticed:
        faster for the first of many, and slower for all of them.
        """
        if few:
            packed = self._packed(unpacked)
            first = packed.number_of(offset - self.base_offset)
            for number in range(first, len(packed)):
                yield self._stored(*packed.row(number))
            return
        offsets, rows = self.rows(unpacked)
        for at in range(bisect_left(offsets, offset), len(rows)):
            key, value, headers, own = rows[at]
            timestamp = self.timestamp if own is None else own
            yield StoredRecord(offsets[at], timestamp, key, value, headers or {})

    def records_at(self, offsets: Iterable[int]) -> list[StoredRecord]:
        """Return the records at `offsets`, those that are there, and decode no others.

        Raises CorruptBatch.
        """
        packed, found = self._packed(None), []
        for offset in offsets:
            number = packed.number_of(offset - self.base_offset)
            if number < len(packed):
                record = self._stored(*packed.row(number))
                if record.offset == offset:
                    found.append(record)
        return found

    def _packed(self, unpacked: Buffer | None) -> PackedRows:
        body = self.unpacked() if unpacked is None else unpacked
        return PackedRows(body, count=self.count, span=self.span)

    def _stored(self, delta: int, row: Row) -> StoredRecord:
        key, value, headers, own = row
        timestamp = self.timestamp if own is None else own
        return StoredRecord(self.base_offset + delta, timestamp, key, value, headers or {})

    def rows(self, unpacked: Buffer | None = None) -> tuple[Sequence[int], list[Row]]:
        """Return the records as they lie in the body, and their offsets; raises CorruptBatch."""
        body = self.unpacked() if unpacked is None else unpacked
        offsets: Sequence[int]
        if self.is_dense:
            rows, offsets = decode_rows(body), range(self.base_offset, self.next_offset)
        else:
            sparse = decode_sparse_rows(body, self.span)
            rows = [row[:4] for row in sparse]
            offsets = [self.base_offset + row[4] for row in sparse]
        if len(rows) != self.count:
            raise CorruptBatch(None, 0, f"{len(rows)} records where the header says {self.count}")
        return offsets, rows

    def digest(self) -> bytes:
        """Return what the next batch carries as its `chain`."""
        assert len(self.data) == self.size, "the digest covers the body too"
        return xxh3_128_digest(self.data)

    def header_only(self) -> Batch:
        """Return this batch without its body, for who keeps many."""
        return msgspec.structs.replace(self, data=bytes(self.data[:BATCH_HEADER_SIZE]))


def build_batch(
    body: Buffer,
    *,
    count: int,
    base_offset: int,
    timestamp: int,
    max_timestamp: int,
    span: int | None = None,
    term: int = 0,
    index: int = 0,
    producer_id: int | None = None,
    producer_epoch: int = 0,
    sequence: int = 0,
    chain: bytes = CHAIN_START,
    codec: int = CODEC_NONE,
) -> Batch:
    """Put a header before `body`, the `count` records as `encode_records` packs them.

    The body is copied, not looked into; with another `codec` it is compressed already
    (`codec.pack`). Only a batch with a `span` of its own, from compaction, may be without records.
    Raises ValueError if this one is not, if the batch would pass BATCH_BYTES_MAX, or if a number
    does not fit its field.
    """
    size = BATCH_HEADER_SIZE + len(body)
    if span is None and count < 1:
        raise ValueError("a batch holds one record at least")
    span = count if span is None else span
    assert max(1, count) <= span
    if size > BATCH_BYTES_MAX:
        raise ValueError(f"a batch of {size} bytes is above {BATCH_BYTES_MAX}")
    fields = (
        MAGIC,
        VERSION,
        codec,
        size,
        count,
        span,
        base_offset,
        timestamp,
        max_timestamp,
        term,
        index,
        NO_PRODUCER if producer_id is None else producer_id,
        producer_epoch,
        sequence,
        chain,
    )
    assert len(chain) == len(CHAIN_START)
    try:
        rest = _REST.pack(*fields)
    except struct.error as error:
        raise ValueError(f"batch header: {error}") from error
    crc = crc32c(body, crc32c(rest))
    return Batch(crc, *fields, b"".join((_CRC.pack(crc), rest, body)))


def parse_batch(buffer: Buffer, position: int = 0) -> Batch:
    """Return the batch that begins at `position`; its data is a view of `buffer`.

    Raises IncompleteBatch if the buffer ends before the batch does, CorruptBatch if the bytes are
    no batch. Both say position, and no path.
    """
    remaining = len(buffer) - position
    if remaining < BATCH_HEADER_SIZE:
        raise IncompleteBatch(None, position, f"{remaining} bytes are no header")
    header = _HEADER.unpack_from(buffer, position)
    crc, magic, version, _codec, size, count, span = header[:7]
    if magic != MAGIC or version != VERSION:
        raise CorruptBatch(None, position, f"magic {magic:#06x}, version {version}")
    if not BATCH_HEADER_SIZE <= size <= BATCH_BYTES_MAX or not max(1, count) <= span:
        raise CorruptBatch(None, position, f"size {size}, count {count}, span {span}")
    if remaining < size:
        raise IncompleteBatch(None, position, f"{remaining} of {size} bytes")
    data = memoryview(buffer)[position : position + size]
    if crc32c(data[4:]) != crc:
        raise CorruptBatch(None, position, "checksum mismatch")
    fields: tuple[Any, ...] = (*header, data)
    return Batch(*fields)


def rechained(batch: Batch, chain: bytes) -> Batch:
    """Return the batch as it is behind another one."""
    header = batch.data[: BATCH_HEADER_SIZE - len(chain)]
    rest = b"".join((header[_CRC.size :], chain))
    crc = crc32c(batch.body, crc32c(rest))
    data = b"".join((_CRC.pack(crc), rest, batch.body))
    return msgspec.structs.replace(batch, crc=crc, chain=chain, data=data)


def batch_size(buffer: Buffer, position: int) -> int:
    """Return the size that the header at `position` claims, or raise as `parse_batch` does.

    For who holds the header and must know how much to read; the claim is bounded, not checked.
    """
    if len(buffer) - position < BATCH_HEADER_SIZE:
        raise IncompleteBatch(None, position, "no whole header")
    _crc, magic, version, _codec, size = _HEADER.unpack_from(buffer, position)[:5]
    if (magic, version) != (MAGIC, VERSION) or not BATCH_HEADER_SIZE <= size <= BATCH_BYTES_MAX:
        raise CorruptBatch(None, position, f"magic {magic:#06x}, version {version}, size {size}")
    return int(size)
