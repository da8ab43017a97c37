"""The client's own writing and reading of batches, against what the nodes have."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import msgpack
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.client import batch_format
from cute_logger.client.batch_format import Cut, Row, pack_rows, records_in, row_of, row_size
from cute_logger.client.record import Record
from cute_logger.client.wire import MalformedAnswer
from cute_logger.storage import Record as StoredLike
from cute_logger.storage import build_batch, encode_records
from cute_logger.storage.codec import CODECS, pack

EVERYTHING = Cut(0, 2**63, None, 1 << 30)
RECORDS = st.lists(
    st.builds(
        Record,
        value=st.none() | st.binary(max_size=300),
        key=st.none() | st.binary(max_size=20),
        headers=st.dictionaries(st.text(max_size=40), st.text(max_size=5), max_size=3),
        timestamp=st.none() | st.integers(0, 2**63 - 1),
    ),
    min_size=1,
    max_size=20,
)


def stored_like(records: Sequence[Record]) -> list[StoredLike]:
    return [StoredLike(r.value, r.key, r.headers, r.timestamp) for r in records]


def newest(records: Sequence[Record]) -> int | None:
    return max((r.timestamp for r in records if r.timestamp is not None), default=None)


def stored(values: Sequence[bytes], base_offset: int = 0, codec: str = "none") -> bytes:
    """A batch as a node keeps it."""
    used, body = pack(CODECS[codec], encode_records([StoredLike(value) for value in values]))
    fields = {"count": len(values), "timestamp": 5, "max_timestamp": 5, "codec": used}
    return bytes(build_batch(body, base_offset=base_offset, **fields).data)


@settings(max_examples=100, deadline=None)
@given(RECORDS, st.none() | st.tuples(*[st.integers(0, 2**31)] * 3))
def test_a_batch_is_byte_for_byte_what_a_node_would_build(
    records: list[Record], producer: tuple[int, int, int] | None
) -> None:
    sent = pack_rows([row_of(r) for r in records]).with_stamp(producer)
    producer_id, epoch, sequence = producer or (None, 0, 0)
    built = build_batch(
        encode_records(stored_like(records)),
        count=len(records),
        base_offset=0,
        timestamp=0,
        max_timestamp=newest(records) or 0,
        producer_id=producer_id,
        producer_epoch=epoch,
        sequence=sequence,
    )
    assert sent == built.data


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(300), bytes(70_000)])
def test_a_value_alone_is_a_row_with_nothing_else(value: bytes) -> None:
    alone, among_others = pack_rows([value]), pack_rows([value, Row(b"k", None, None, 7)])
    assert alone == pack_rows([row_of(Record(value))])
    assert among_others == pack_rows([Row(None, value), row_of(Record(None, b"k", timestamp=7))])
    assert among_others.max_timestamp == 7


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_the_size_of_a_row_is_about_what_it_takes(records: list[Record]) -> None:
    for row in map(row_of, records):
        assert abs(row_size(row) - (len(pack_rows([row]).body) - 1)) <= 10


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=50, deadline=None)
@given(RECORDS, st.integers(0, 2**40))
def test_a_stored_batch_is_read_as_a_node_reads_it(
    codec: str, records: list[Record], base_offset: int
) -> None:
    used, body = pack(CODECS[codec], encode_records(stored_like(records)))
    fields = {"timestamp": 9, "max_timestamp": 9, "base_offset": base_offset, "codec": used}
    batch = build_batch(body, count=len(records), **fields)
    found, next_offset = records_in(bytes(batch.data), EVERYTHING)
    assert next_offset == batch.next_offset
    for ours, theirs in zip(found, batch.records(), strict=True):
        for name in ("offset", "timestamp", "key", "value", "headers"):
            assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_node_unpacks_what_the_client_compressed(compression: str) -> None:
    rows = [b"apples " * 20] * 10
    packed = pack_rows(rows, compression)
    assert packed.codec == CODECS[compression]
    assert len(packed.body) < len(pack_rows(rows).body)
    batch = build_batch(
        packed.body, codec=packed.codec, count=10, base_offset=0, timestamp=0, max_timestamp=0
    )
    assert packed.with_stamp() == batch.data
    assert [record.value for record in batch.records()] == [b"apples " * 20] * 10
    small = pack_rows([b"x"], compression)
    assert small.codec == 0


TEN = stored([b"%d" % n for n in range(4)]) + stored([b"%d" % n for n in range(4, 10)], 4, "zstd")


@pytest.mark.parametrize(
    ("cut", "offsets", "next_offset"),
    [
        (Cut(0, 10, None, 1000), range(10), 10),
        (Cut(2, 10, None, 1000), range(2, 10), 10),
        (Cut(5, 7, None, 1000), range(5, 7), 7),
        (Cut(0, 10, 3, 1000), range(3), 3),
        (Cut(1, 10, 3, 1000), range(1, 4), 4),
        (Cut(1, 10, 4, 1000), range(1, 5), 5),
        (Cut(0, 10, None, 1), range(4), 4),
        (Cut(4, 4, None, 1000), [], 4),
    ],
)
def test_what_is_wanted_is_cut_out_of_whole_batches(
    cut: Cut, offsets: Sequence[int], next_offset: int
) -> None:
    records, then = records_in(TEN, cut)
    assert [record.offset for record in records] == [*offsets]
    assert [record.value for record in records] == [b"%d" % offset for offset in offsets]
    assert then == next_offset


def forged(body: bytes, **fields: int) -> bytes:
    """A batch at offset 100 with a right checksum, whatever it says."""
    said = {"codec": 0, "size": 96 + len(body), "count": 1, "span": 1} | fields
    header = struct.pack("<HBBIIIQ", 0x4C43, 1, *said.values(), 100) + bytes(68)
    return struct.pack("<I", crc32c(body, crc32c(header))) + header + body


def test_where_compaction_left_gaps_rows_say_their_offsets() -> None:
    rows = [[None, b"a", None, 3, 1], [b"k", None, {"h": "x"}, 4, 7]]
    raw = forged(msgpack.packb(rows), count=2, span=9) + forged(b"\x90", count=0, span=5)
    records, _ = records_in(raw, EVERYTHING)
    assert records == [
        Record(b"a", timestamp=3, offset=101),
        Record(None, b"k", {"h": "x"}, 4, 107),
    ]


MALFORMED: dict[str, Callable[[], bytes]] = {
    "half a header": lambda: TEN[:50],
    "a cut batch": lambda: TEN[:-1],
    "no batch": lambda: b"x" * 200,
    "a flipped bit": lambda: TEN[:100] + bytes([TEN[100] ^ 1]) + TEN[101:],
    "size 0": lambda: forged(b"\x90", size=0, count=0),
    "another codec": lambda: forged(b"\x90", codec=9),
    "no frame": lambda: forged(b"\x90", codec=1),
    "no lz4 frame": lambda: forged(b"\x90", codec=2),
    "a cut frame": lambda: forged(bytes(pack(1, bytes(1000))[1])[:-1], codec=1),
    "two frames": lambda: forged(bytes(pack(2, bytes(1000))[1]) * 2, codec=2),
    "other counts": lambda: forged(b"\x90"),
    "no rows": lambda: forged(b"\x91\xc0"),
    "short rows": lambda: forged(msgpack.packb([[None]])),
    "no offsets": lambda: forged(msgpack.packb([[None] * 4]), span=2),
    "no msgpack": lambda: forged(b"\xc1"),
    "a str as value": lambda: forged(msgpack.packb([[None, "a", None, None]])),
    "headers of bytes": lambda: forged(msgpack.packb([[None, b"a", {"h": b"x"}, None]])),
    "headers of no Unicode": lambda: forged(b"\x91\x94\xc0\xc0\x81\xa1\xff\xa0\xc0"),
    "long rows": lambda: forged(msgpack.packb([[None] * 5])),
    "a claim of 4 G rows": lambda: forged(b"\xdd" + b"\xff" * 4),
    "a claim of 4 G headers": lambda: forged(b"\x91\x94\xc0\xc0\xdf" + b"\xff" * 4),
    "a claim of a value of 4 GB": lambda: forged(b"\x91\x94\xc0\xc6" + b"\xff" * 4),
    "a nest of rows": lambda: forged(b"\x91" * 100_000),
    "rubbish behind it": lambda: forged(msgpack.packb([[None] * 4]) + b"x"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_batch_is_told(name: str) -> None:
    with pytest.raises(MalformedAnswer):
        records_in(MALFORMED[name](), EVERYTHING)


@pytest.mark.parametrize("codec", [1, 2])
def test_a_bomb_is_told(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_format, "BODY_BYTES_MAX", 10_000)
    _, bomb = pack(codec, bytes(1 << 20))
    with pytest.raises(MalformedAnswer, match="not one whole frame"):
        records_in(forged(bomb, codec=codec), EVERYTHING)
