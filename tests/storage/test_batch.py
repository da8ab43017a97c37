"""A batch's bytes are fixed, and every wrong one is noticed."""

from __future__ import annotations

import pytest

from cute_logger.storage.batch import (
    BATCH_BYTES_MAX,
    BATCH_HEADER_SIZE,
    NO_PRODUCER,
    Batch,
    batch_size,
    build_batch,
    parse_batch,
)
from cute_logger.storage.errors import CorruptBatch, IncompleteBatch
from cute_logger.storage.record import Record, StoredRecord, encode_records, encode_sparse_rows

BODY = encode_records([Record(b"v", b"k")])
CHAIN = bytes(range(16))
BYTES = bytes.fromhex(
    "1425bea9"  # crc
    "434c 01 00"  # magic, version, codec
    "6a000000 01000000 01000000"  # size, count, span
    "0807060504030201"  # base offset
    "e803000000000000 feffffffffffffff"  # timestamp, largest timestamp
    "0500000000000000 0600000000000000"  # term, index
    "0700000000000000 08000000 0900000000000000"  # producer, its epoch, its sequence
    "000102030405060708090a0b0c0d0e0f"  # chain
    "91 94 c4016b c40176 c0 c0"
)


def small_batch() -> Batch:
    return build_batch(
        BODY,
        count=1,
        base_offset=0x0102030405060708,
        timestamp=1000,
        max_timestamp=-2,
        term=5,
        index=6,
        producer_id=7,
        producer_epoch=8,
        sequence=9,
        chain=CHAIN,
    )


def test_a_batch_becomes_these_bytes() -> None:
    assert bytes(small_batch().data).hex(" ", 4) == BYTES.hex(" ", 4)


def test_these_bytes_become_a_batch() -> None:
    assert parse_batch(BYTES) == small_batch()
    batch = parse_batch(b"xyz" + BYTES + b"more", 3)
    assert (batch.crc, batch.size, batch.count, batch.span) == (0xA9BE2514, len(BYTES), 1, 1)
    assert (batch.base_offset, batch.next_offset) == (0x0102030405060708, 0x0102030405060709)
    assert (batch.timestamp, batch.max_timestamp, batch.term, batch.index) == (1000, -2, 5, 6)
    assert (batch.producer_id, batch.producer_epoch, batch.sequence) == (7, 8, 9)
    assert batch.chain == CHAIN
    assert batch.data == BYTES
    assert batch.body == BODY
    assert batch_size(BYTES, 0) == batch.size


def test_a_batch_without_a_producer_says_so() -> None:
    batch = build_batch(BODY, count=1, base_offset=0, timestamp=0, max_timestamp=0)
    assert parse_batch(batch.data).producer_id == NO_PRODUCER


def test_every_truncation_is_incomplete() -> None:
    for size in range(len(BYTES)):
        with pytest.raises(IncompleteBatch):
            parse_batch(BYTES[:size])


def test_every_flipped_bit_is_corrupt() -> None:
    for bit in range(8 * len(BYTES)):
        garbled = bytearray(BYTES)
        garbled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptBatch):
            parse_batch(garbled)


def test_a_corrupt_batch_says_where() -> None:
    with pytest.raises(CorruptBatch) as corrupt:
        parse_batch(b"xyz" + BYTES[:-1] + b"!", 3)
    assert not isinstance(corrupt.value, IncompleteBatch)
    assert (corrupt.value.path, corrupt.value.position) == (None, 3)
    assert "checksum" in corrupt.value.reason


def test_a_claimed_size_beyond_the_largest_is_corrupt_not_incomplete() -> None:
    garbled = bytearray(BYTES)
    garbled[8:12] = (BATCH_BYTES_MAX + 1).to_bytes(4, "little")
    for read in (parse_batch, batch_size):
        with pytest.raises(CorruptBatch) as corrupt:
            read(garbled, 0)
        assert not isinstance(corrupt.value, IncompleteBatch)


def test_records_get_offsets_and_a_timestamp() -> None:
    body = encode_records([Record(b"a", timestamp=7), Record(None, b"k", {"h": "x"})])
    batch = build_batch(body, count=2, base_offset=40, timestamp=9, max_timestamp=9)
    assert parse_batch(batch.data).records() == [
        StoredRecord(40, 7, None, b"a", {}),
        StoredRecord(41, 9, b"k", None, {"h": "x"}),
    ]


def test_records_that_are_not_as_many_as_the_header_says_are_corrupt() -> None:
    batch = build_batch(BODY, count=2, base_offset=0, timestamp=0, max_timestamp=0)
    with pytest.raises(CorruptBatch, match="1 records"):
        batch.records()


def test_the_digest_covers_every_byte() -> None:
    first = small_batch()
    other = build_batch(BODY, count=1, base_offset=0, timestamp=0, max_timestamp=0)
    assert first.digest() == parse_batch(BYTES).digest() != other.digest()
    assert len(first.digest()) == len(CHAIN)


def test_a_header_alone_keeps_the_fields_but_not_the_body() -> None:
    header = parse_batch(BYTES).header_only()
    assert header.data == BYTES[:BATCH_HEADER_SIZE]
    assert (header.base_offset, header.size) == (small_batch().base_offset, len(BYTES))


def test_a_batch_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        small_batch().term = 1  # type: ignore[misc]


def test_what_does_not_fit_is_refused() -> None:
    def build(body: bytes = BODY, count: int = 1, timestamp: int = 0) -> Batch:
        return build_batch(
            body, count=count, base_offset=0, timestamp=timestamp, max_timestamp=timestamp
        )

    largest = bytes(BATCH_BYTES_MAX - BATCH_HEADER_SIZE)
    assert parse_batch(build(largest).data).size == BATCH_BYTES_MAX
    with pytest.raises(ValueError, match="above"):
        build(largest + b"x")
    with pytest.raises(ValueError, match="one record"):
        build(count=0)
    with pytest.raises(ValueError, match="header"):
        build(timestamp=2**63)


def dense_batch() -> Batch:
    records = [Record(b"%d" % n, b"k", {"h": "x"}, timestamp=n or None) for n in range(5)]
    return build_batch(
        encode_records(records), count=5, base_offset=10, timestamp=7, max_timestamp=7
    )


def sparse_batch() -> Batch:
    rows = [(b"k", b"%d" % delta, None, None, delta) for delta in (1, 2, 6)]
    body = encode_sparse_rows(rows)
    return build_batch(body, count=3, span=8, base_offset=10, timestamp=7, max_timestamp=7)


@pytest.mark.parametrize("batch", [dense_batch(), sparse_batch()])
@pytest.mark.parametrize("few", [False, True])
def test_records_from_an_offset_on_are_those_of_all(batch: Batch, few: bool) -> None:
    for offset in range(8, 20):
        wanted = [record for record in batch.records() if record.offset >= offset]
        assert list(batch.records_from(offset, few=few)) == wanted


@pytest.mark.parametrize("batch", [dense_batch(), sparse_batch()])
def test_records_at_offsets_are_those_that_are_there(batch: Batch) -> None:
    wanted = range(8, 20)
    assert batch.records_at(wanted) == batch.records()
    for record in batch.records():
        assert batch.records_at([record.offset]) == [record]


@pytest.mark.parametrize(
    ("body", "count", "span"),
    [
        (b"\xc1", 1, 1),
        (encode_records([Record(b"v")] * 2), 3, 3),
        (encode_records([Record(b"v")]) + b"\xc0", 1, 1),
        (b"\x91\xc0", 1, 1),
        (b"\x91\x94\xc0\xa1v\xc0\xc0", 1, 1),
        (encode_records([Record(b"v")]), 1, 2),
        (encode_sparse_rows([(None, b"v", None, None, 2)]), 1, 2),
    ],
)
def test_one_record_of_a_body_that_is_none_is_corrupt(body: bytes, count: int, span: int) -> None:
    batch = build_batch(body, count=count, span=span, base_offset=0, timestamp=0, max_timestamp=0)
    with pytest.raises(CorruptBatch):
        batch.records_at([0])
    with pytest.raises(CorruptBatch):
        next(batch.records_from(0, few=True))
