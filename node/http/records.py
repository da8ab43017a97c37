"""Append: records in, receipt out; and what became of an idempotency key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from ...replication.types import Append, NoRecord, ProducerStamp, Receipt
from ...storage.record import Record, encode_records, record_size
from ..streams_config import ENCODED_BYTES_MAX, RECORDS_MAX
from .answers import answer
from .bodies import BATCHES, Form, read_body, read_struct
from .compression import compressed
from .context import context_of
from .levels import LEVEL_TIMEOUT_S, with_stream
from .problems import Problem, invalid
from .queries import INTEGER_MAX, AppendQuery, Count, Query, WriteQuery, read_query
from .sent_batch import Sent, append_of, largest_size, record_bytes_limit
from .streams import stream_name

SLICE_RECORDS: Final = 1000
"""After converting so many, let others run."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)


class JsonRecord(msgspec.Struct, forbid_unknown_fields=True):
    """Text as it is; other bytes as base64 under the other name. A null value is a tombstone."""

    key: str | UnsetType | None = UNSET
    key_b64: str | UnsetType = UNSET
    value: str | UnsetType | None = UNSET
    value_b64: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    timestamp: Count | UnsetType = UNSET


class MsgpackRecord(msgspec.Struct, forbid_unknown_fields=True):
    """Bytes as they are; a str is its UTF-8. msgspec takes no union of the two: decoded by hand."""

    value: msgspec.Raw
    key: msgspec.Raw | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    timestamp: Count | UnsetType = UNSET


After: TypeAlias = Annotated[int, Meta(ge=-1, le=INTEGER_MAX)]
"""The offset behind which nothing may be; -1: nothing at all."""


class Unchanged(msgspec.Struct, forbid_unknown_fields=True):
    """No record of this key behind offset `since`."""

    since: After
    key: str | UnsetType = UNSET
    key_b64: str | UnsetType = UNSET


class NoMatch(msgspec.Struct, forbid_unknown_fields=True):
    """No record behind offset `after` that a search of the index with `eq` would find."""

    index: str
    eq: str
    after: After


class Condition(msgspec.Struct, forbid_unknown_fields=True):
    """All that are given have to hold."""

    offset: Count | UnsetType = UNSET
    unchanged: Unchanged | UnsetType = UNSET
    no_match: NoMatch | UnsetType = UNSET


class Producer(msgspec.Struct, forbid_unknown_fields=True):
    id: Count
    epoch: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    sequence: Annotated[int, Meta(ge=0, le=INTEGER_MAX)]


class AppendBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    condition: Condition | UnsetType = msgspec.field(name="if", default=UNSET)
    producer: Producer | UnsetType = UNSET


class JsonAppend(AppendBody, kw_only=True):
    records: Annotated[list[JsonRecord], Meta(min_length=1, max_length=RECORDS_MAX)]

    def to_records(self, start: int, end: int) -> list[Record]:
        items = enumerate(self.records[start:end], start)
        return [_from_json(item, position) for position, item in items]


class MsgpackAppend(AppendBody, kw_only=True):
    records: Annotated[list[MsgpackRecord], Meta(min_length=1, max_length=RECORDS_MAX)]

    def to_records(self, start: int, end: int) -> list[Record]:
        items = enumerate(self.records[start:end], start)
        return [_from_msgpack(item, position) for position, item in items]


APPEND_FORM: Final[Form[JsonAppend | MsgpackAppend]] = Form(JsonAppend, MsgpackAppend)


_condition_decoder: Final = msgspec.json.Decoder(Condition)


def _from_json(item: JsonRecord, position: int) -> Record:
    value, key = item.value, item.key
    return Record(
        value=value.encode()
        if isinstance(value, str) and item.value_b64 is UNSET
        else _bytes(value, item.value_b64, position, "value"),
        key=None
        if key is UNSET and item.key_b64 is UNSET
        else _bytes(key, item.key_b64, position, "key"),
        headers={} if item.headers is UNSET else item.headers,
        timestamp=None if item.timestamp is UNSET else item.timestamp,
    )


def _bytes(
    text: str | UnsetType | None, b64: str | UnsetType, position: int, name: str
) -> bytes | None:
    return _given_bytes(text, b64, f"records[{position}].{name}")


def _given_bytes(text: str | UnsetType | None, b64: str | UnsetType, field: str) -> bytes | None:
    if b64 is UNSET:
        if text is UNSET:
            raise invalid(field, "this field is needed; null is a tombstone")
        return text.encode() if text is not None else None
    if text is not UNSET:
        raise invalid(f"{field}_b64", "both are given; one of the two is wanted")
    try:
        return base64.b64decode(b64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{field}_b64", f"is not base64: {error}") from error


def _from_msgpack(item: MsgpackRecord, position: int) -> Record:
    return Record(
        value=_raw_bytes(item.value, position, "value"),
        key=_raw_bytes(item.key, position, "key"),
        headers={} if item.headers is UNSET else item.headers,
        timestamp=None if item.timestamp is UNSET else item.timestamp,
    )


_bytes_decoder: Final[msgspec.msgpack.Decoder[bytes | None]] = msgspec.msgpack.Decoder(bytes | None)
_text_decoder: Final = msgspec.msgpack.Decoder(str)


def _raw_bytes(came: msgspec.Raw | UnsetType, position: int, name: str) -> bytes | None:
    if came is UNSET:
        return None
    try:
        return _bytes_decoder.decode(came)
    except msgspec.ValidationError:
        return _text_bytes(came, f"records[{position}].{name}")


def _text_bytes(came: msgspec.Raw, field: str) -> bytes:
    try:
        return _text_decoder.decode(came).encode()
    except msgspec.ValidationError as error:
        kind = str(error).rpartition("got ")[2].strip("`")
        raise invalid(field, f"wanted bin, str or nil; came {kind}") from error
    except (UnicodeDecodeError, msgspec.DecodeError) as error:  # the one up to msgspec 0.22
        raise invalid(field, "is not UTF-8") from error


async def append(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/streams/{stream}/records; on the leader."""
    stream = stream_name(request, writes=True)
    key = idempotency_key(request)
    context = context_of(request)
    assert isinstance(query, AppendQuery)
    if request.content_type == BATCHES:
        batch = await append_of(context, await _sent(request, query, stream, key))
    elif query.if_offset is not UNSET or query.condition is not UNSET:
        field = "if_offset" if query.if_offset is not UNSET else "if"
        raise invalid(field, f"goes with a body of {BATCHES}; here it is the field `if`")
    else:
        body = await read_struct(request, APPEND_FORM)
        records = await to_records(body)
        batch = build_append(stream, body, records, key, record_bytes_limit(context, stream))
        batch = await compressed(context, batch)
    receipt = await context.live_replica().append(batch, timeout_s=query.timeout_ms / 1000)
    return answer(request, describe(receipt))


async def _sent(request: web.Request, query: AppendQuery, stream: str, key: str | None) -> Sent:
    return Sent(
        stream,
        conditions=conditions_of(query.condition),
        raw=await read_body(request),
        if_offset=None if isinstance(query.if_offset, UnsetType) else query.if_offset,
        key=key,
    )


def conditions_of(text: str | UnsetType) -> tuple[NoRecord, ...]:
    """Return the conditions that a parameter `if` says, none without one. Raises Problem."""
    return () if isinstance(text, UnsetType) else tuple(_conditions(_condition_of(text)))


def _condition_of(text: str) -> Condition:
    try:
        condition = _condition_decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise invalid("if", str(error)) from error
    if condition.offset is not UNSET:
        raise invalid("if.offset", "is the parameter if_offset here")
    return condition


def describe(receipt: Receipt) -> dict[str, Any]:
    return asdict(receipt) | {"durability": "quorum"}


async def to_records(body: JsonAppend | MsgpackAppend) -> list[Record]:
    """Convert piece by piece, so that a large body does not keep heartbeats waiting."""
    records: list[Record] = []
    for start in range(0, len(body.records), SLICE_RECORDS):
        if start:
            await asyncio.sleep(0)
        records += body.to_records(start, start + SLICE_RECORDS)
    return records


def build_append(
    stream: str,
    body: JsonAppend | MsgpackAppend,
    records: Sequence[Record],
    key: str | None = None,
    record_bytes_limit: int = ENCODED_BYTES_MAX,
) -> Append:
    """Turn a body and its records into what the replica appends.

    Raises Problem `record_too_large`, `batch_too_large`.
    """
    largest = largest_size(list(map(record_size, records)), record_bytes_limit)
    encoded = encode_records(records)
    if len(encoded) > ENCODED_BYTES_MAX:
        raise Problem(
            "batch_too_large",
            f"the records take {len(encoded)} bytes when packed",
            limit_bytes=ENCODED_BYTES_MAX,
        )
    condition, producer = body.condition, body.producer
    return Append(
        stream=stream,
        body=encoded,
        count=len(records),
        record_bytes_max=largest,
        max_timestamp=max((r.timestamp for r in records if r.timestamp is not None), default=None),
        if_offset=None if condition is UNSET or condition.offset is UNSET else condition.offset,
        conditions=() if condition is UNSET else tuple(_conditions(condition)),
        producer=None
        if producer is UNSET
        else ProducerStamp(producer.id, producer.epoch, producer.sequence),
        idempotency_key=key,
        keyless=sum(record.key is None for record in records),
    )


def _conditions(condition: Condition) -> Iterator[NoRecord]:
    unchanged, no_match = condition.unchanged, condition.no_match
    if condition.offset is UNSET and unchanged is UNSET and no_match is UNSET:
        raise invalid("if", "wanted offset, unchanged or no_match")
    if unchanged is not UNSET:
        if unchanged.key is UNSET and unchanged.key_b64 is UNSET:
            raise invalid("if.unchanged.key", "this field is needed")
        key = _given_bytes(unchanged.key, unchanged.key_b64, "if.unchanged.key")
        yield NoRecord(key or b"", unchanged.since)
    if no_match is not UNSET:
        yield NoRecord(no_match.eq.encode(), no_match.after, no_match.index)


def idempotency_key(request: web.Request) -> str | None:
    """Return the request's key, None if it has none; raises Problem `invalid_request`."""
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    if len(given) > 1:
        raise invalid("Idempotency-Key", "wanted once")
    return checked_key(given[0], "Idempotency-Key")


def checked_key(key: str, field: str) -> str:
    """Raises Problem `invalid_request`."""
    if not _KEY.fullmatch(key):
        raise invalid(field, "wanted 1 to 256 visible ASCII characters")
    return key


async def get_receipt(request: web.Request) -> web.Response:
    """GET /v1/streams/{stream}/idempotency/{key}

    Linearizable: who asks wants to know whether an append with an unknown outcome happened, and a
    follower that lags would say no.
    """
    name = stream_name(request, writes=False)
    read_query(request, Query)
    key = checked_key(request.match_info["key"], "key")
    context = context_of(request)
    await context.live_replica().read_barrier(timeout_s=LEVEL_TIMEOUT_S)
    await with_stream(context, name)
    return answer(request, describe(context.live_replica().idempotency_receipt(name, key)))
