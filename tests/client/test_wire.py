from __future__ import annotations

import base64
import copy
import json

import msgpack
import pytest

from cute_logger.client import errors, wire
from cute_logger.client.batch_format import pack_rows, row_of
from cute_logger.client.record import Record, record_of, records_of


def test_an_append_of_a_transaction_is_this_msgpack() -> None:
    packed = [wire.pack_record(Record(b"\xff", key=b"k", headers={"a": "b"}, timestamp=5))]
    body = wire.pack_append(packed, stream="s", if_offset=3)

    assert msgpack.unpackb(body) == {
        "stream": "s",
        "records": [{"value": b"\xff", "key": b"k", "headers": {"a": "b"}, "timestamp": 5}],
        "if": {"offset": 3},
    }


def test_what_is_not_given_is_left_out_but_a_tombstone_is_nil() -> None:
    assert wire.pack_record(Record(None)) == b"\x81\xa5value\xc0"
    assert wire.pack_append([wire.pack_record(Record(b""))], stream="s") == (
        b"\x82\xa6stream\xa1s\xa7records\x91\x81\xa5value\xc4\x00"
    )


@pytest.mark.parametrize("value", [b"text", b"", b"\xff\r\n", "Ω".encode(), None])
def test_json_shapes_keep_every_byte(value: bytes | None) -> None:
    record = Record(value, key=value, headers={"h": "1"}, timestamp=9, offset=4)
    assert wire.record_from(json.loads(json.dumps(wire.json_shape(record)))) == record


def test_bytes_that_are_no_text_travel_as_base64() -> None:
    shape = wire.json_shape(Record(b"\xff"))
    assert shape["value_b64"] == base64.b64encode(b"\xff").decode()
    assert "value" not in shape


@pytest.mark.parametrize("shape", [{"value": 5}, {"value_b64": "?"}, {"value_b64": 5}, []])
def test_a_malformed_record_is_told(shape: object) -> None:
    with pytest.raises(wire.MalformedAnswer):
        wire.record_from(shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", b"{"), ("application/msgpack", b"\x91"), ("text/html", b"<p>")],
)
def test_a_malformed_body_is_told(content_type: str, body: bytes) -> None:
    with pytest.raises(wire.MalformedAnswer):
        wire.decode_body(content_type, body)


def test_segments_and_parameters_are_percent_encoded() -> None:
    assert wire.path_of("v1", "a/b?") == "/v1/a%2Fb%3F"
    assert wire.query_of({"key": b"\xff&", "limit": 5, "until": None}) == "?key=%FF%26&limit=5"
    assert wire.query_of({"until": None}) == ""


def answer(
    status: int, headers: dict[str, str] | None = None, **members: object
) -> errors.CuteError:
    error = wire.error_from(
        status,
        {"Content-Type": "application/problem+json", **(headers or {})},
        json.dumps(members).encode(),
    )
    assert error is not None
    return error


def test_a_problem_becomes_the_error_of_its_code() -> None:
    error = answer(
        412, code="condition_failed", side_effect="none", detail="d", request_id="r", actual=7
    )
    assert isinstance(error, errors.ConditionFailed)
    assert (error.actual, error.detail, error.request_id) == (7, "d", "r")
    assert error.facts == {"actual": 7}


def test_a_side_effect_that_may_be_makes_the_outcome_unknown() -> None:
    assert isinstance(answer(500, code="no_leader", side_effect="maybe"), errors.OutcomeUnknown)
    assert isinstance(answer(504, code="outcome_unknown"), errors.OutcomeUnknown)


def test_a_failure_that_is_no_problem_of_ours_leaves_the_outcome_open_above_499() -> None:
    html = {"Content-Type": "text/html"}
    assert isinstance(wire.error_from(502, html, b"<p>"), errors.OutcomeUnknown)
    assert type(wire.error_from(404, html, b"<p>")) is errors.Refused


def test_an_unknown_code_keeps_its_name() -> None:
    error = answer(409, code="brand_new", side_effect="none")
    assert (type(error), error.code) == (errors.Refused, "brand_new")


def test_what_is_not_built_is_refused() -> None:
    assert type(answer(501, code="not_implemented")) is errors.Refused


def test_retry_after_is_read_in_seconds() -> None:
    throttled = answer(429, {"Retry-After": "3"}, code="throttled", side_effect="none")
    dated = answer(429, {"Retry-After": "Mon, 01 Jan 2029 00:00:00 GMT"}, code="throttled")
    assert (throttled.retry_after_s, dated.retry_after_s) == (3.0, None)


def test_a_success_is_no_failure() -> None:
    assert wire.error_from(204, {}, b"") is None


@pytest.mark.parametrize(
    "wrong",
    [5, Record(5), [b"a", None], [5], 1.5, {}],  # type: ignore[arg-type]
)
def test_a_value_of_the_wrong_type_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        records_of(wrong)  # type: ignore[arg-type]


def test_a_record_does_not_take_a_second_key() -> None:
    with pytest.raises(ValueError, match="its own key"):
        record_of(Record(b""), key=b"k")


def test_an_empty_batch_and_a_negative_timestamp_are_value_errors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        records_of([])
    with pytest.raises(ValueError, match="timestamp"):
        record_of(b"", timestamp=-1)


def test_a_record_is_a_frozen_value() -> None:
    record = Record(b"v", b"k", {"h": "x"}, 5, 7)
    assert record == Record(b"v", key=b"k", headers={"h": "x"}, timestamp=5, offset=7)
    assert record != Record(b"v", key=b"k", headers={"h": "x"}, timestamp=5, offset=8)
    assert repr(Record(b"v")) == (
        "Record(value=b'v', key=None, headers={}, timestamp=None, offset=None)"
    )
    with pytest.raises(AttributeError):
        record.value = b"w"  # type: ignore[misc]
    assert copy.copy(record) == record
    assert Record(b"v").headers is not Record(b"v").headers


def test_subclasses_are_sent_as_what_they_are_of() -> None:
    class Text(str):
        def __str__(self) -> str:
            return "another"

    class Number(int): ...

    class Raw(bytes): ...

    record = record_of(
        Raw(b"v"), key=Text("k"), headers={Text("h"): Text("x")}, timestamp=Number(5)
    )
    assert record == Record(b"v", b"k", {"h": "x"}, 5)
    assert pack_rows([row_of(record)]).body == msgpack.packb([[b"k", b"v", {"h": "x"}, 5]])


def test_text_is_sent_as_utf_8() -> None:
    assert record_of("Ω", key="k") == Record("Ω".encode(), key=b"k")
