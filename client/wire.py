"""How requests and answers look as bytes: pure functions, no I/O. Batches: `batch_format`.

Bodies are JSON or msgpack, the same structure in both, except for keys and values:

    msgpack   "value": bin | nil
    JSON      "value": string (its UTF-8 text) | null, or "value_b64": base64 of any bytes

Failures are `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_from_bytes

import msgpack  # type: ignore[import-untyped]

from .errors import REFUSALS, CuteError, OutcomeUnknown, Refused, Throttled, Unavailable
from .record import NO_HEADERS, Record

JSON = "application/json"
MSGPACK = "application/msgpack"
PROBLEM_JSON = "application/problem+json"
BATCHES = "application/vnd.cute.batch"
EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"

NODE_HEADER = "Cute-Node"
LEADER_HEADER = "Cute-Leader"
TERM_HEADER = "Cute-Term"
INDEX_HEADER = "Cute-Index"
IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
RETRY_AFTER_HEADER = "Retry-After"

STREAM_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}", re.ASCII)
"""A leading `_` is reserved for the system's streams: readable, not to be created."""
INDEX_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)
"""It travels in a header."""

_PROBLEM_MEMBERS = frozenset(
    {"type", "title", "status", "detail", "code", "retryable", "side_effect", "request_id"}
)


class MalformedAnswer(ValueError):
    """A body is not what its content type says."""


# --- records


def pack_record(record: Record) -> bytes:
    """Return `record` as one element of the `records` of a transaction's append, in msgpack."""
    shape: dict[str, object] = {"value": record.value}
    if record.key is not None:
        shape["key"] = record.key
    if record.headers:
        shape["headers"] = record.headers
    if record.timestamp is not None:
        shape["timestamp"] = record.timestamp
    packed: bytes = msgpack.packb(shape)
    return packed


def pack_append(
    packed_records: Sequence[bytes],
    *,
    stream: str,
    if_offset: int | None = None,
) -> bytes:
    """Return one of the appends of a transaction, in msgpack."""
    members: dict[str, object] = {"stream": stream}
    if if_offset is not None:
        members["if"] = {"offset": if_offset}
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(1 + len(members))
    for name, value in members.items():
        packer.pack(name)
        packer.pack(value)
    packer.pack("records")
    packer.pack_array_header(len(packed_records))
    return bytes(packer.bytes()) + b"".join(packed_records)


def pack_transaction(
    packed_appends: Sequence[bytes], commits: Sequence[Mapping[str, object]]
) -> bytes:
    """Return the msgpack body of a transaction."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(2)
    packer.pack("commits")
    packer.pack(list(commits))
    packer.pack("appends")
    packer.pack_array_header(len(packed_appends))
    return bytes(packer.bytes()) + b"".join(packed_appends)


def record_from(shape: Mapping[str, Any]) -> Record:
    """Return a record as a read answers it, from JSON or msgpack. Raises MalformedAnswer."""
    try:
        return Record(
            bytes_from(shape, "value"),
            bytes_from(shape, "key"),
            shape.get("headers") or NO_HEADERS,
            shape.get("timestamp"),
            shape.get("offset"),
        )
    except (AttributeError, TypeError, binascii.Error) as error:
        raise MalformedAnswer(f"not a record: {error}") from error


def bytes_from(shape: Mapping[str, Any], name: str) -> bytes | None:
    """Return the key or value `name` of a record's JSON or msgpack shape."""
    value = shape.get(name)
    if type(value) is bytes:
        return value
    if value is None:
        encoded = shape.get(f"{name}_b64")
        return None if encoded is None else base64.b64decode(encoded, validate=True)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{name}: bytes or text is wanted, not {type(value).__name__}")


def json_shape(record: Record) -> dict[str, object]:
    """Return `record` as JSON shows it."""
    shape: dict[str, object] = {"offset": record.offset, "timestamp": record.timestamp}
    _put_bytes(shape, "key", record.key)
    _put_bytes(shape, "value", record.value)
    shape["headers"] = dict(record.headers)
    return shape


def _put_bytes(shape: dict[str, object], name: str, value: bytes | None) -> None:
    if value is None:
        shape[name] = None
        return
    try:
        shape[name] = value.decode()
    except UnicodeDecodeError:
        shape[f"{name}_b64"] = base64.b64encode(value).decode()


# --- bodies and addresses


def decode_body(content_type: str, body: bytes) -> Any:
    """Return the structure in `body`; None for an empty one. Raises MalformedAnswer."""
    if not body:
        return None
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == MSGPACK:
            return msgpack.unpackb(body)
        if kind in (JSON, PROBLEM_JSON):
            return json.loads(body)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise MalformedAnswer(f"not {kind}: {error}") from error
    raise MalformedAnswer(f"an answer of type {kind or 'none'} is not understood")


def path_of(*segments: str) -> str:
    """Return the absolute path of these segments, each percent-encoded."""
    return "".join("/" + quote(segment, safe="") for segment in segments)


def query_of(parameters: Mapping[str, int | str | bytes | None]) -> str:
    """Return a query string with its `?`, without the parameters that are None."""
    text = "&".join(
        f"{name}={quoted(value)}" for name, value in parameters.items() if value is not None
    )
    return f"?{text}" if text else ""


def quoted(value: int | str | bytes) -> str:
    """Return a value as it stands in an address."""
    return quote_from_bytes(value if isinstance(value, bytes) else str(value).encode(), safe="")


# --- failures


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> CuteError | None:
    """Return the failure that an answer tells, None for a 2xx.

    An answer above 499 that is no problem of ours (a proxy's, a crash's) leaves the outcome open.
    """
    if 200 <= status < 300:
        return None
    problem = _problem_members(headers.get("Content-Type", ""), body)
    return failure_of(status, problem, _retry_after_s(headers))


def failure_of(status: int, problem: Mapping[str, Any], retry_after_s: float | None) -> CuteError:
    """Return the failure that an answer tells whose status is no 2xx."""
    code = problem.get("code")
    retryable = problem.get("retryable")
    failure = _failure_class(status, code if isinstance(code, str) else None, problem)
    request_id = problem.get("request_id")
    return failure(
        str(problem.get("detail") or problem.get("title") or f"HTTP status {status}"),
        code=code if isinstance(code, str) else None,
        facts={name: value for name, value in problem.items() if name not in _PROBLEM_MEMBERS},
        request_id=request_id if isinstance(request_id, str) else None,
        retryable=retryable if isinstance(retryable, bool) else None,
        retry_after_s=retry_after_s,
    )


def _problem_members(content_type: str, body: bytes) -> dict[str, Any]:
    try:
        problem = decode_body(content_type, body)
    except MalformedAnswer:
        return {}
    return problem if isinstance(problem, dict) else {}


def _failure_class(status: int, code: str | None, problem: Mapping[str, Any]) -> type[CuteError]:
    side_effect = problem.get("side_effect")
    is_open = status >= 500 and status != 501 and side_effect != "none"
    if side_effect == "maybe" or status == 504 or is_open:
        return OutcomeUnknown
    if code is not None and code in REFUSALS:
        return REFUSALS[code]
    return {429: Throttled, 503: Unavailable}.get(status, Refused)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get(RETRY_AFTER_HEADER, "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text, re.ASCII) else None
