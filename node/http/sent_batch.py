"""Append a batch as its client built it: `Content-Type: application/vnd.cute.batch`.

The body of the request is one batch (`storage/batch.py` draws it) and nothing else:

    magic, version, size, crc   as in every batch; the checksum covers the body as it is sent
    codec                       0 none, 1 one zstd frame (its window 8 MiB at most), 2 one lz4 frame
    count, span                 the number of records, twice
    max_timestamp               the largest timestamp that a record carries, 0 if none carries one
    producer_id, …, sequence    of the producer; 2**64 - 1, 0, 0 without one
    base_offset, timestamp,     zero: the leader fills them in
    term, index, chain
    body                        msgpack: [[key, value, headers | nil, timestamp | nil], …]

There is one way to write a body: every length and number in its shortest form, no empty headers, no
name twice, so that records have one digest however they are sent. The condition on the next offset
is the parameter `if_offset`; `Idempotency-Key` is a header as always.

All of it is checked, and decoded once, before the leader takes it; a body is kept as it came. The
records are not: one large batch at a time is looked at, on another thread.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ...replication.dedupe import body_digest
from ...replication.types import Append, ProducerStamp
from ...storage.batch import BATCH_HEADER_SIZE, CHAIN_START, NO_PRODUCER, Batch, parse_batch
from ...storage.codec import CODECS, codec_name
from ...storage.errors import CorruptBatch, UnpacksTooLarge
from ...storage.record import Row, decode_rows, encode_rows, row_size
from ..streams_config import ENCODED_BYTES_MAX, RECORDS_MAX
from .compression import INLINE_BYTES_MAX
from .context import Context
from .problems import Problem, invalid
from .queries import INTEGER_MAX

_ZEROS: Final = ("base_offset", "timestamp", "term", "index")


class Contents(NamedTuple):
    """What has to be known of a body's records."""

    record_bytes_max: int
    max_timestamp: int | None
    digest: bytes
    keyless: int
    """Records without a key."""


async def append_of(
    context: Context,
    stream: str,
    raw: bytes,
    *,
    if_offset: int | None,
    key: str | None,
    record_bytes_limit: int,
) -> Append:
    """Return what the replica appends. Raises Problem."""
    batch = _parsed(raw)
    _check_header(batch)
    contents = await _contents_of(context, batch, record_bytes_limit)
    stamp = ProducerStamp(batch.producer_id, batch.producer_epoch, batch.sequence)
    return Append(
        stream=stream,
        body=bytes(batch.body),
        count=batch.count,
        record_bytes_max=contents.record_bytes_max,
        max_timestamp=contents.max_timestamp,
        if_offset=if_offset,
        producer=None if batch.producer_id == NO_PRODUCER else stamp,
        idempotency_key=key,
        codec=batch.codec,
        digest=contents.digest,
        keyless=contents.keyless,
    )


async def _contents_of(context: Context, batch: Batch, limit: int) -> Contents:
    try:
        return contents_of(batch, INLINE_BYTES_MAX, limit)
    except UnpacksTooLarge:
        pass
    async with context.unpacking:
        try:
            return await asyncio.to_thread(contents_of, batch, ENCODED_BYTES_MAX, limit)
        except UnpacksTooLarge as error:
            raise Problem(
                "batch_too_large", f"records: {error.reason}", limit_bytes=ENCODED_BYTES_MAX
            ) from error


def _parsed(raw: bytes) -> Batch:
    try:
        batch = parse_batch(raw)
    except CorruptBatch as error:
        raise invalid(_wrong_field(raw), error.reason) from error
    if batch.size != len(raw):
        raise invalid("size", f"one batch is wanted; {len(raw) - batch.size} bytes follow it")
    return batch


def _wrong_field(raw: bytes) -> str:
    """Return why these bytes are no batch."""
    if len(raw) < BATCH_HEADER_SIZE:
        return "body"
    if raw[4:6] != b"CL":
        return "magic"
    if raw[6] != 1:
        return "version"
    size = int.from_bytes(raw[8:12], "little")
    if not BATCH_HEADER_SIZE <= size <= len(raw):
        return "size"
    return "crc" if any(raw[16:20]) else "span"


def _check_header(batch: Batch) -> None:
    for name in _ZEROS:
        if getattr(batch, name):
            raise invalid(name, f"wanted 0, the leader fills it in; came {getattr(batch, name)}")
    if batch.chain != CHAIN_START:
        raise invalid("chain", "wanted zeros, the leader fills it in")
    if not 1 <= batch.count <= RECORDS_MAX:
        raise invalid("count", f"wanted 1 to {RECORDS_MAX} records; came {batch.count}")
    if batch.span != batch.count:
        raise invalid("span", f"wanted the count, {batch.count}; came {batch.span}")
    if batch.codec not in CODECS.values():
        known = ", ".join(f"{codec} ({name})" for name, codec in CODECS.items())
        raise invalid("codec", f"wanted one of {known}; came {batch.codec}")
    _check_producer(batch)


def _check_producer(batch: Batch) -> None:
    if batch.producer_id == NO_PRODUCER:
        if batch.producer_epoch or batch.sequence:
            raise invalid("producer_id", "is none, but there is an epoch or a sequence")
        return
    for name in ("producer_id", "sequence"):
        if getattr(batch, name) > INTEGER_MAX:
            raise invalid(name, f"wanted at most {INTEGER_MAX}; came {getattr(batch, name)}")


def contents_of(batch: Batch, bytes_max: int, record_bytes_limit: int) -> Contents:
    """Decode the body of a batch whose header is right. Raises Problem.

    Raises UnpacksTooLarge if its records take more than `bytes_max`.
    """
    try:
        # Bytes are compared a hundred times as fast as views of them.
        plain = bytes(batch.unpacked(bytes_max))
        _check_length(batch, plain)
        rows = decode_rows(plain)
    except UnpacksTooLarge:
        raise
    except CorruptBatch as error:
        raise invalid("body", f"{codec_name(batch.codec)}: {error.reason}") from error
    if encode_rows(rows) != plain:
        raise invalid("body", "these records are written in another way when they are packed")
    return Contents(
        largest_size(list(map(row_size, rows)), record_bytes_limit),
        _newest(rows, batch.max_timestamp),
        body_digest(plain),
        sum(row[0] is None for row in rows),
    )


def _check_length(batch: Batch, plain: bytes) -> None:
    """Decode no more rows than there may be: one of five bytes takes a hundred in memory."""
    match plain[:1]:
        case b"\xdc":
            count = int.from_bytes(plain[1:3], "big")
        case b"\xdd":
            count = int.from_bytes(plain[1:5], "big")
        case first:
            count = first[0] & 0x0F if first and first[0] & 0xF0 == 0x90 else -1
    if count < 0:
        raise invalid("body", "is no msgpack array")
    if count != batch.count:
        raise invalid("count", f"says {batch.count}; the body holds {count} records")


def largest_size(sizes: list[int], limit: int) -> int:
    """Return the size of the largest record. Raises Problem `record_too_large`."""
    largest = max(sizes)
    if largest > limit:
        raise Problem(
            "record_too_large",
            f"records[{sizes.index(largest)}] has {largest} bytes of key, value and headers",
            limit_bytes=limit,
        )
    return largest


def _newest(rows: list[Row], claimed: int) -> int | None:
    """Return the largest timestamp that a record carries, None if none carries one."""
    stamps = [row[3] for row in rows if row[3] is not None]
    if stamps and min(stamps) < 0:
        place = next(at for at, row in enumerate(rows) if row[3] is not None and row[3] < 0)
        raise invalid(f"records[{place}].timestamp", f"wanted 0 or more; came {rows[place][3]}")
    newest = max(stamps, default=None)
    if claimed != (newest or 0):
        raise invalid("max_timestamp", f"wanted {newest or 0}, as the records say; came {claimed}")
    return newest
