"""Batches, one by one and end to end in a store: `storage.batch`, `storage.store`."""

from __future__ import annotations

import struct

from crc32c import crc32c

from cute_logger.storage.batch import (
    BATCH_HEADER_SIZE,
    NO_PRODUCER,
    Batch,
    batch_size,
    build_batch,
    parse_batch,
)
from cute_logger.storage.errors import CorruptBatch, IncompleteBatch
from cute_logger.storage.record import Record, encode_records
from cute_logger.storage.store import Store
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk

_PATH = "/store"
_FIELDS = struct.Struct("<HBBIIIQqqQQQIQ16s")


def target(data: bytes) -> None:
    choices = Choices(data)
    match choices.below(4):
        case 0:
            _check(choices.rest())
        case 1:
            _check(forged(choices))
        case 2:
            whole = bytes(sound(choices, 0).data)
            _check_flip(whole, choices.below(8 * len(whole)))
        case 3:
            _check_store(choices)


def sound(choices: Choices, base_offset: int, chain: bytes = bytes(16)) -> Batch:
    records = [
        Record(
            choices.binary() if choices.below(8) else None,
            choices.binary(8) if choices.flag() else None,
            {choices.text(4): choices.text(4)} if choices.below(4) == 0 else {},
            choices.below(1 << 62) if choices.flag() else None,
        )
        for _ in range(1 + choices.below(3))
    ]
    return build_batch(
        encode_records(records),
        count=len(records),
        base_offset=base_offset,
        timestamp=choices.below(1 << 16),
        max_timestamp=choices.below(1 << 16),
        producer_id=choices.below(9) if choices.flag() else None,
        chain=chain,
    )


def forged(choices: Choices) -> bytes:
    """Return a batch with some field of any value, its checksum right more often than not."""
    whole = bytes(sound(choices, choices.below(4)).data)
    fields = list(_FIELDS.unpack_from(whole, 4))
    for _ in range(1 + choices.below(2)):
        at = choices.below(len(fields) - 1)
        bits = {"H": 16, "B": 8, "I": 32, "Q": 64, "q": 63}["HBBIIIQqqQQQIQ"[at]]
        fields[at] = choices.number() & ((1 << bits) - 1)
    body = whole[BATCH_HEADER_SIZE:]
    if choices.below(4) == 3:
        body = edited(body, choices)
        fields[3] = BATCH_HEADER_SIZE + len(body)
    rest = _FIELDS.pack(*fields) + body
    crc = crc32c(rest) ^ (choices.below(16) == 15)
    return struct.pack("<I", crc) + rest


def _check(data: bytes) -> None:
    """Any bytes are a batch or not; a batch's records are what its header says, or refused."""
    try:
        batch = parse_batch(data)
    except CorruptBatch:
        return
    assert batch_size(data, 0) == batch.size == len(batch.data)
    try:
        records = batch.records()
    except CorruptBatch:
        return
    assert len(records) == batch.count
    if batch.span == batch.count:
        assert bytes(_built(batch).data) == bytes(batch.data)


def _built(batch: Batch) -> Batch:
    return build_batch(
        batch.body,
        count=batch.count,
        base_offset=batch.base_offset,
        timestamp=batch.timestamp,
        max_timestamp=batch.max_timestamp,
        term=batch.term,
        index=batch.index,
        producer_id=None if batch.producer_id == NO_PRODUCER else batch.producer_id,
        producer_epoch=batch.producer_epoch,
        sequence=batch.sequence,
        chain=batch.chain,
        codec=batch.codec,
    )


def _check_flip(whole: bytes, bit: int) -> None:
    try:
        parse_batch(flipped(whole, bit))
    except CorruptBatch:
        return
    raise AssertionError("a flipped bit was not noticed")


def _check_store(choices: Choices) -> None:
    """A scan yields what parsing one by one does, however much it reads at a time."""
    parts = [bytes(sound(choices, at).data) for at in range(1 + choices.below(4))]
    if choices.flag():
        parts.insert(choices.below(len(parts) + 1), forged(choices))
    stream = b"".join(parts)
    if choices.flag():
        stream = edited(stream, choices)
    disk = Disk()
    disk.put(_PATH, stream)
    position, error = 0, ""
    wanted = []
    while position < len(stream) and not error:
        try:
            batch = parse_batch(stream, position)
        except CorruptBatch as bad:
            error = bad.reason if not isinstance(bad, IncompleteBatch) else "ends"
        else:
            wanted.append(bytes(batch.data))
            position += batch.size
    found, failure = _scanned(disk, choices.below(1 << 10))
    assert found == wanted
    assert bool(failure) == bool(error)


def _scanned(disk: Disk, chunk_bytes: int) -> tuple[list[bytes], str]:
    store = Store.open(disk, _PATH, is_durable=True)
    found = []
    try:
        for batches in store.scan(0, chunk_bytes):
            found += [bytes(batch.data) for batch in batches]
    except CorruptBatch as error:
        return found, error.reason
    return found, ""
