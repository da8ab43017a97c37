from __future__ import annotations

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cute_logger.node.http.bodies import JSON, MSGPACK, Form, decode_body
from cute_logger.node.http.cluster import MemberBody
from cute_logger.node.http.problems import Problem
from cute_logger.node.http.records import APPEND_FORM, build_append
from cute_logger.node.http.streams import _refusal
from cute_logger.node.streams_config import StreamConfigError, parse_stream_config
from cute_logger.storage.record import Record, decode_records


def decode(raw: bytes | str, content_type: str = JSON) -> Any:
    return decode_body(raw.encode() if isinstance(raw, str) else raw, content_type, APPEND_FORM)


def records_of(body: Any) -> list[Record]:
    return body.to_records(0, len(body.records))


def refused(raw: bytes | str, content_type: str = JSON) -> Problem:
    with pytest.raises(Problem) as problem:
        decode(raw, content_type)
    assert problem.value.code == "invalid_request"
    return problem.value


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b'{"records":[{"value":"a"}]} x',
        b'{"records":[{"value":NaN}]}',
        b'{"records":[{"value":"a","timestamp":Infinity}]}',
        b'{"records":[{"value":"\xff"}]}',
        b'{"records":[{"value":"\\ud800"}]}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"records":' * 100_000,
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(raw) -> None:
    refused(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x81",
        b"\x81\xa7records",
        b"\x91" * 100_000,
        b"\x81\xa7records\x91\x81\xa5value" + b"\x91" * 100_000,
        b"\x81\xa7records\xdd\xff\xff\xff\xff",
        b"\x81\xa7records\x91\x82\xa5value\xc0\xa7headers\x81\xa1\xff\xa1a",
        b"\x81\x01\x02",
        b"\xc1",
    ],
)
def test_what_is_no_msgpack_is_refused(raw) -> None:
    refused(raw, MSGPACK)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ('{"records":[{"value":"a","value":"b"}]}', "value"),
        ('{"records":[{"value":"a","v\\u0061lue":"b"}]}', "value"),
        ('{ "records" : [ { "value" : "a" , "value" : "b" } ] }', "value"),
        ('{"records":[{"value":"a"}],"records":[{"value":"b"}]}', "records"),
        ('{"records":[{"value":"a","headers":{"x":"1","x":"2"}}]}', "x"),
        ('{"records":[{"value":"a","headers":{"x\\\\":"1","x\\\\":"2"}}]}', "x\\"),
        ('{"records":[{"value":"\\":\\":","key":"k","key":"k"}]}', "key"),
        ('{"records":[{"value":"\\u0022","value":"a"}]}', "value"),
        ('{"records":[{"timestamp":1,"timestamp":1,"value":"\\u0022\\u0022"}]}', "timestamp"),
    ],
)
def test_two_values_under_one_name_are_refused(raw, name) -> None:
    problem = refused(raw)
    assert problem.facts["field"] == name
    assert "twice" in problem.detail


@pytest.mark.parametrize(
    "value",
    ['{"a":1}', '":', '\\":', '\\\\":', 'a" :', "\n\t", "\\", '"', '{"a":{"a":{"a":1}}}'],
)
def test_a_value_may_look_like_json_itself(value) -> None:
    for indent in (None, 2):
        body = json.dumps({"records": [{"value": value, "headers": {value: value}}]}, indent=indent)
        assert records_of(decode(body))[0].value == value.encode()


@given(st.lists(st.tuples(st.text(), st.dictionaries(st.text(), st.text())), min_size=1))
def test_any_text_passes_through_json_and_msgpack(rows) -> None:
    body = {"records": [{"value": value, "headers": headers} for value, headers in rows]}
    wanted = [(value.encode(), headers) for value, headers in rows]
    for raw, content_type in (
        (json.dumps(body).encode(), JSON),
        (json.dumps(body, ensure_ascii=False, indent=1).encode(), JSON),
        (pack(body), MSGPACK),
    ):
        records = records_of(decode(raw, content_type))
        assert [(record.value, dict(record.headers)) for record in records] == wanted


@given(st.text(), st.text())
def test_a_repeated_header_is_found_however_it_is_written(name, value) -> None:
    once, twice = json.dumps(name), json.dumps(name, ensure_ascii=False)
    text = json.dumps(value)
    refused(f'{{"records":[{{"value":{text},"headers":{{{once}:{text},{twice}:{text}}}}}]}}')


def test_two_values_under_one_name_are_refused_in_msgpack() -> None:
    twice = b"\x82\xa5value\xa1a\xa5value\xa1b"
    problem = refused(b"\x81\xa7records\x91" + twice, MSGPACK)
    assert problem.facts["field"] == "value"


def test_a_field_that_may_be_left_out_does_not_hide_another_that_is_there_twice() -> None:
    form = Form.same(MemberBody)
    for raw in (
        b'{"id":"a","raft":"h:1","raft":"h:2"}',
        b'{"id":"a","raft":"h:1","raft":"h:2","role":"voter"}',
        b'{"id":"a","raft":"h:1","role":"voter","role":"learner"}',
    ):
        with pytest.raises(Problem, match="twice"):
            decode_body(raw, JSON, form)
    with pytest.raises(Problem, match="twice"):
        decode_body(b"\x83\xa2id\xa1a\xa4raft\xa1b\xa4raft\xa5abcde", MSGPACK, form)
    for role in ("voter", "learner"):
        raw = json.dumps({"id": "a", "raft": "h:1", "role": role}).encode()
        assert decode_body(raw, JSON, form).role == role


def test_a_map_whose_key_is_an_array_is_no_value() -> None:
    body = decode(b"\x81\xa7records\x91\x81\xa5value\x81\x91\xd9\x01a\x01", MSGPACK)
    with pytest.raises(Problem, match="wanted bin, str or nil"):
        records_of(body)


def test_msgpack_may_use_longer_forms_than_needed() -> None:
    body = decode(b"\x81\xa7records\x91\x81\xd9\x05value\xda\x00\x01a", MSGPACK)
    assert records_of(body)[0].value == b"a"


def test_msgpack_takes_bin_and_str_for_key_and_value() -> None:
    body = decode(pack({"records": [{"key": b"\xff", "value": "ä"}, {"value": None}]}), MSGPACK)
    first, second = records_of(body)
    assert (first.key, first.value) == (b"\xff", "ä".encode())
    assert (second.key, second.value) == (None, None)


@pytest.mark.parametrize(
    ("value", "came"),
    [(1, "int"), (1.5, "float"), (True, "bool"), ([b"a"], "array"), ({}, "object")],
)
def test_msgpack_takes_nothing_else_for_a_value(value, came) -> None:
    body = decode(pack({"records": [{"value": value}]}), MSGPACK)
    with pytest.raises(Problem) as problem:
        records_of(body)
    assert problem.value.detail == f"records[0].value: wanted bin, str or nil; came {came}"


@pytest.mark.parametrize("field", [b"\xa5value\xa2a\xff", b"\xa5value\xc0\xa3key\xa1\xff"])
def test_a_text_for_a_value_or_a_key_is_utf_8(field) -> None:
    size = b"\x82" if b"key" in field else b"\x81"
    body = decode(b"\x81\xa7records\x91" + size + field, MSGPACK)
    with pytest.raises(Problem, match=r"records\[0\]\.(key|value): is not UTF-8"):
        records_of(body)


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"\x81\xa7records\x91\x81\xa5value\xdd\0\x10\0\0" + b"\x90" * (1 << 20), MSGPACK),
        (b"\x81\xa7records\x91\x81\xa5value\xdd\0\x10\0\0" + b"\x80" * (1 << 20), MSGPACK),
        (b"\xdd\0\x10\0\0" + b"\x80" * (1 << 20), MSGPACK),
        (b"\x81\xa7records\xdd\0\x02\0\0" + b"\x81\xa5value\xc0" * (1 << 17), MSGPACK),
        (b"[" + b"[]," * (1 << 18) + b"[]]", JSON),
    ],
)
def test_a_body_takes_no_more_memory_than_a_few_times_its_size(raw, content_type) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Problem):
            records_of(decode(raw, content_type))
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()


def test_a_refusal_is_short_whatever_came() -> None:
    value = "x" * 100_000
    with pytest.raises(StreamConfigError) as error:
        parse_stream_config({"segment.bytes": value})
    assert len(_refusal(error.value).detail) < 1_000


def test_msgpack_knows_no_base64() -> None:
    assert refused(pack({"records": [{"value_b64": "YQ=="}]}), MSGPACK).facts["nearest"] == "value"


def test_a_refusal_names_the_field_what_came_and_what_is_wanted() -> None:
    problem = refused('{"records":[{"value":"a"},{"value":"a","timestamp":"now"}]}')
    assert problem.facts["field"] == "records[1].timestamp"
    assert "Expected int" in problem.detail
    assert "'now'" in problem.detail


def test_an_unknown_field_names_the_nearest() -> None:
    problem = refused('{"records":[{"value":"a","header":{}}]}')
    assert problem.facts["field"] == "records[0].header"
    assert problem.facts["nearest"] == "headers"


def test_a_field_in_the_wrong_place_is_unknown_there() -> None:
    problem = refused('{"records":[{"value":"a"}],"if":{"ofset":1}}')
    assert problem.facts["field"] == "if.ofset"
    assert problem.facts["nearest"] == "offset"


@pytest.mark.parametrize(
    "name", ["x` - at `$.foo", "x` - at `$.records[0].foo", "` - at `", "`", "x - at `$[...]"]
)
def test_an_unknown_field_may_have_any_name(name) -> None:
    refused(json.dumps({"records": [{"value": "a"}], name: 1}))
    problem = refused(json.dumps({"records": [{"value": "a", name: 1}]}))
    assert problem.facts["field"] == f"records[0].{name}"


def test_what_came_is_shown_in_short() -> None:
    problem = refused(json.dumps({"records": [{"value": "a", "timestamp": "x" * 100_000}]}))
    assert len(problem.detail) < 300


def test_an_append_carries_the_encoded_records_and_their_extremes() -> None:
    body = decode(
        '{"records":[{"value":"abc","key":"k"},{"value":null,"timestamp":9}],'
        '"if":{"offset":4},"producer":{"id":1,"epoch":2,"sequence":3}}'
    )

    append = build_append("orders", body, records_of(body), "once")

    assert [record.value for record in decode_records(append.body)] == [b"abc", None]
    assert (append.count, append.record_bytes_max, append.max_timestamp) == (2, 4, 9)
    assert append.if_offset == 4
    assert append.producer is not None
    assert (append.producer.id, append.producer.epoch, append.producer.sequence) == (1, 2, 3)
    assert append.idempotency_key == "once"


def test_records_that_pack_to_more_than_the_limit_are_refused() -> None:
    body = decode(json.dumps({"records": [{"value": "x" * (1 << 20)}] * 4}))
    with pytest.raises(Problem) as refusal:
        build_append("orders", body, records_of(body))
    assert refusal.value.code == "batch_too_large"
    assert refusal.value.facts["limit_bytes"] == 4 << 20


def test_a_record_above_its_limit_is_named() -> None:
    body = decode('{"records":[{"value":"a"},{"value":"abcd","key":"k","headers":{"ä":"b"}}]}')
    assert build_append("orders", body, records_of(body), None, 8).record_bytes_max == 8
    with pytest.raises(Problem, match=r"records\[1\] has 8 bytes") as refusal:
        build_append("orders", body, records_of(body), None, 7)
    assert refusal.value.code == "record_too_large"
