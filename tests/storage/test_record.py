"""Records become bytes and come back; bytes that are no records are refused cheaply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cute_logger.storage.errors import CorruptBatch
from cute_logger.storage.record import Record, decode_records, encode_records, record_size

ALL_FIELDS = Record(value=b"v", key=b"k", headers={"h": "é"}, timestamp=1000)
ALL_FIELDS_BODY = bytes.fromhex("91 94 c4016b c40176 81a168a2c3a9 cd03e8")

records = st.builds(
    Record,
    value=st.none() | st.binary(max_size=40),
    key=st.none() | st.binary(max_size=40),
    headers=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
)


def test_a_record_becomes_these_bytes() -> None:
    assert encode_records([ALL_FIELDS]) == ALL_FIELDS_BODY
    assert encode_records([Record(None)]) == bytes.fromhex("91 94 c0 c0 c0 c0")


def test_these_bytes_become_a_record() -> None:
    assert decode_records(ALL_FIELDS_BODY) == [ALL_FIELDS]
    assert decode_records(bytes.fromhex("91 94 c0 c0 c0 c0")) == [Record(None)]


@given(st.lists(records, max_size=20))
def test_records_come_back_as_they_were(written: list[Record]) -> None:
    assert decode_records(memoryview(encode_records(written))) == written


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_no_truncation_of_a_body_is_a_body(written: list[Record], data: st.DataObject) -> None:
    body = encode_records(written)
    with pytest.raises(CorruptBatch):
        decode_records(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=60))
def test_any_bytes_are_records_or_corrupt(body: bytes) -> None:
    try:
        decoded = decode_records(body)
    except CorruptBatch:
        return
    assert all(isinstance(record, Record) for record in decoded)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes.fromhex("c0"),
        bytes.fromhex("91 93 c0 c0 c0"),
        bytes.fromhex("91 95 c0 c0 c0 c0 c0"),
        bytes.fromhex("91 94 a16b c0 c0 c0"),
        bytes.fromhex("91 94 c0 c0 81 a168 01 c0"),
        bytes.fromhex("91 94 c0 c0 81 a168 a1ff c0"),
        bytes.fromhex("91 94 c0 c0 c0 c3"),
        bytes.fromhex("91 94 c0 c0 c0 cf8000000000000000"),
        bytes.fromhex("91 94 c0 c0 c0 c0 c0"),
        bytes.fromhex("dd ffffffff 94 c0 c0 c0 c0"),
        bytes.fromhex("91 94 c6 ffffffff c0 c0 c0"),
        bytes.fromhex("91 94 c0 c0 df ffffffff c0"),
        b"\x91" * 100_000,
        b"\xdd\x00\x01\x00\x00" * 20_000,
    ],
    ids=[
        "empty",
        "no array",
        "three fields",
        "five fields",
        "text as key",
        "number as header",
        "header not UTF-8",
        "bool as timestamp",
        "timestamp above 63 bits",
        "bytes left over",
        "claims 2**32 records",
        "claims 4 GiB of key",
        "claims 2**32 headers",
        "nested deeply",
        "nested and claiming",
    ],
)
def test_malformed_bodies_are_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptBatch):
        decode_records(body)


def test_the_size_of_a_record_counts_key_value_and_headers_in_bytes() -> None:
    assert record_size(Record(None)) == 0
    assert record_size(Record(b"value", b"key", {"é": "ab"}, timestamp=5)) == 5 + 3 + 2 + 2
