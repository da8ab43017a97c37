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
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import Final, NamedTuple

import msgspec

from ...replication.dedupe import body_digest
from ...replication.errors import UnknownStream
from ...replication.types import Append, NoRecord, ProducerStamp
from ...storage.batch import BATCH_HEADER_SIZE, CHAIN_START, NO_PRODUCER, Batch, parse_batch
from ...storage.codec import CODECS, codec_name
from ...storage.errors import CorruptBatch, UnpacksTooLarge
from ...storage.record import decode_rows, row_size
from ..streams_config import ENCODED_BYTES_MAX, RECORDS_MAX
from .compression import INLINE_BYTES_MAX, compressed, compressed_inline
from .context import Context
from .problems import Problem, invalid
from .queries import INTEGER_MAX

_ZEROS: Final = ("base_offset", "timestamp", "term", "index")
_encoder: Final = msgspec.msgpack.Encoder()
"""Writes rows as `encode_rows` does, but for empty headers."""


class Contents(NamedTuple):
    """What has to be known of a body's records."""

    record_bytes_max: int
    max_timestamp: int | None
    digest: bytes
    keyless: int
    """Records without a key."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An append as it came."""

    stream: str
    raw: bytes
    if_offset: int | None = None
    conditions: tuple[NoRecord, ...] = ()
    key: str | None = None


async def append_of(context: Context, sent: Sent) -> Append:
    """Return what the replica appends. Raises Problem."""
    batch = _checked(sent.raw)
    contents = await _contents_of(context, batch, record_bytes_limit(context, sent.stream))
    return await compressed(context, _append(sent, batch, contents))


def small_append_of(context: Context, sent: Sent) -> Append | None:
    """Return the same at once; None if its records are so many that another thread looks at them.

    Raises Problem.
    """
    batch = _checked(sent.raw)
    try:
        contents = contents_of(batch, INLINE_BYTES_MAX, record_bytes_limit(context, sent.stream))
    except UnpacksTooLarge:
        return None
    return compressed_inline(context, _append(sent, batch, contents))


def record_bytes_limit(context: Context, stream: str) -> int:
    """Return the stream's own limit if it is known here; the state machine has the last word."""
    try:
        config = context.live_replica().stream_config(stream)
    except UnknownStream:
        return ENCODED_BYTES_MAX
    return int(config["max.message.bytes"])


def _append(sent: Sent, batch: Batch, contents: Contents) -> Append:
    stamp = ProducerStamp(batch.producer_id, batch.producer_epoch, batch.sequence)
    return Append(
        stream=sent.stream,
        body=bytes(batch.body),
        count=batch.count,
        record_bytes_max=contents.record_bytes_max,
        max_timestamp=contents.max_timestamp,
        if_offset=sent.if_offset,
        conditions=sent.conditions,
        producer=None if batch.producer_id == NO_PRODUCER else stamp,
        idempotency_key=sent.key,
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


def _checked(raw: bytes) -> Batch:
    batch = _parsed(raw)
    _check_header(batch)
    return batch


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
    # By columns: a look at each row in Python takes longer than all the rest.
    keys, values, headers, stamps = zip(*rows, strict=True)
    absent = (None,) * len(rows)
    if _encoder.encode(rows) != plain or (headers != absent and {} in headers):
        raise invalid("body", "these records are written in another way when they are packed")
    plain_keys = None if keys == absent else keys
    sizes = _lengths(plain_keys, values) if headers == absent else None
    newest = None if stamps == absent else _newest(stamps)
    _check_newest(newest, batch.max_timestamp)
    return Contents(
        largest_size(sizes or list(map(row_size, rows)), record_bytes_limit),
        newest,
        body_digest(plain),
        len(rows) if plain_keys is None else len([key for key in keys if key is None]),
    )


def _lengths(
    keys: Sequence[bytes | None] | None, values: Sequence[bytes | None]
) -> list[int] | None:
    """Return what `row_size` says of rows without headers; None if it takes a look at each."""
    try:
        lengths = map(len, values)  # type: ignore[arg-type]
        return list(lengths if keys is None else map(add, map(len, keys), lengths))  # type: ignore[arg-type]
    except TypeError:
        return None  # some are without a key, or a value


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


def _newest(stamps: Sequence[int | None]) -> int | None:
    """Return the largest timestamp that a record carries, None if none carries one."""
    given = [stamp for stamp in stamps if stamp is not None]
    if given and min(given) < 0:
        place = next(at for at, stamp in enumerate(stamps) if stamp is not None and stamp < 0)
        raise invalid(f"records[{place}].timestamp", f"wanted 0 or more; came {stamps[place]}")
    return max(given, default=None)


def _check_newest(newest: int | None, claimed: int) -> None:
    if claimed != (newest or 0):
        raise invalid("max_timestamp", f"wanted {newest or 0}, as the records say; came {claimed}")
