"""Values are taken from records and ordered; nothing that a client sends raises."""

from __future__ import annotations

import json
from itertools import pairwise

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.storage.index_values import (
    FALSE,
    NULL,
    NUMBER,
    TEXT,
    TEXT_BYTES_MAX,
    TRUE,
    Value,
    encode,
    is_cut,
    parse_literal,
    source_of,
)
from cute_logger.storage.record import StoredRecord


def record(value: bytes | None, key: bytes | None = None, **headers: str) -> StoredRecord:
    return StoredRecord(0, 0, key, value, headers)


numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(2**53 - 4, 2**53 + 4),
    st.floats(allow_nan=False),
    st.integers(-(2**1000), 2**1000),
)
found_values = st.one_of(
    st.sampled_from([Value(NULL, 0), Value(FALSE, 0), Value(TRUE, 0)]),
    numbers.map(lambda number: Value(NUMBER, number)),
    st.binary(max_size=6).map(lambda text: Value(TEXT, text)),
    st.text("\0\1a", max_size=4).map(lambda text: Value(TEXT, text.encode())),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(found_values, max_size=20))
def test_the_bytes_are_in_the_order_of_the_values(values: list[Value]) -> None:
    for low, high in pairwise(sorted(values)):
        assert (low == high) is (encode(low) == encode(high))
        assert encode(low) <= encode(high)
        assert encode(low) + b"\xff" * 8 < encode(high) or low == high


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=470, max_size=500), st.binary(max_size=500))
def test_long_texts_are_cut_and_keep_their_order(one: bytes, other: bytes) -> None:
    low, high = sorted((Value(TEXT, one), Value(TEXT, other)))
    assert encode(low) <= encode(high)
    assert len(encode(high)) <= TEXT_BYTES_MAX + 3
    assert is_cut(low) or encode(low) != encode(high) or low == high


@pytest.mark.parametrize(
    ("on", "value", "found"),
    [
        ("value:/a", b'{"a": "x"}', Value(TEXT, b"x")),
        ("value:/a", b'{"a": 1.5}', Value(NUMBER, 1.5)),
        ("value:/a", b'{"a": null}', Value(NULL, 0)),
        ("value:/a", b'{"a": true}', Value(TRUE, 0)),
        ("value:/a", b'{"a": {}}', None),
        ("value:/a", b'{"a": []}', None),
        ("value:/a", b'{"b": 1}', None),
        ("value:/a/1/b", b'{"a": [0, {"b": 2}]}', Value(NUMBER, 2)),
        ("value:/a/01", b'{"a": [0, 1]}', None),
        ("value:/a/-", b'{"a": [0, 1]}', None),
        ("value:/a/9", b'{"a": [0, 1]}', None),
        ("value:/a~1b/c~0d", b'{"a/b": {"c~d": 3}}', Value(NUMBER, 3)),
        ("value:/", b'{"": 4}', Value(NUMBER, 4)),
        ("value:", b'"all of it"', Value(TEXT, b"all of it")),
        ("value:", b"no JSON", None),
        ("value:", b"", None),
        ("value:/a", msgpack.packb({"a": "x"}), Value(TEXT, b"x")),
        ("value:/a", msgpack.packb({"a": b"\xff"}), Value(TEXT, b"\xff")),
        ("value:/a", msgpack.packb({"a": float("nan")}), None),
        ("value:/a", msgpack.packb({"a": msgpack.Timestamp(1, 2)}), None),
        ("value:/a", msgpack.packb({1: 2}), None),
        ("value:/a", msgpack.packb({"a": 1}) + b"\0", None),
        ("value:/a", b'{"a": 123456789012345678901234567890}', Value(NUMBER, 10**30 // 81)),
    ],
)
def test_a_pointer_finds_a_scalar_or_nothing(on: str, value: bytes, found: Value | None) -> None:
    if found is not None and found.exact == 10**30 // 81:
        found = Value(NUMBER, 123456789012345678901234567890)
    assert source_of(on).find(record(value)) == found


def test_keys_and_headers_are_texts() -> None:
    assert source_of("key").find(record(b"v", b"\xff")) == Value(TEXT, b"\xff")
    assert source_of("key").find(record(b"v")) is None
    assert source_of("header:h:x").find(record(b"v", None, **{"h:x": "5"})) == Value(TEXT, b"5")
    assert source_of("header:h").find(record(None)) is None
    assert source_of("key").parse(b"5") == Value(TEXT, b"5")


@pytest.mark.parametrize(
    "on", ["", "keys", "key:", "header", "header:", "value", "value:a", "value:/~2", "value:/~"]
)
def test_other_sources_are_refused(on: str) -> None:
    with pytest.raises(ValueError, match=r"wanted|pointer"):
        source_of(on)


def test_what_is_asked_for_is_json_if_it_can_be() -> None:
    for text, value in (
        (b"5", Value(NUMBER, 5)),
        (b'"5"', Value(TEXT, b"5")),
        (b"null", Value(NULL, 0)),
        (b"true", Value(TRUE, 0)),
        (b"abc", Value(TEXT, b"abc")),
        (b"[1]", Value(TEXT, b"[1]")),
        (b"1e999", Value(TEXT, b"1e999")),
        (b"\xff", Value(TEXT, b"\xff")),
        (b"", Value(TEXT, b"")),
    ):
        assert parse_literal(text) == value


@pytest.mark.parametrize("depth", [60, 70, 900, 200_000])
def test_deep_values_are_not_indexed(depth: int) -> None:
    find = source_of("value:/a").find
    nested = b"[" * depth + b"]" * depth
    found = find(record(b'{"a": 1, "b": ' + nested + b"}"))
    assert (found is not None) is (depth < 64)
    assert find(record(b"\x82\xa1a\x01\xa1b" + b"\x91" * depth + b"\x01")) == found


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(json.dumps).map(str.encode)))
def test_no_value_raises(value: bytes) -> None:
    for on in ("value:", "value:/a", "value:/0/0"):
        found = source_of(on).find(record(value))
        assert found is None or encode(found)
