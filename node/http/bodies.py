"""Request bodies: read within limits, then decoded from JSON or msgpack into a msgspec struct.

- A body counts against the node's budget byte by byte as it arrives, until its request is answered.
- A `Content-Encoding` is refused: 8 KB can unpack to 256 MB.
- Decoding takes memory by a body's size: nothing is decoded without a type but small bodies that
  were refused, to say what came. An empty list takes 70 bytes of memory for each of its own.
- Strict: unknown fields, values of another type, `NaN`, two values under one name are refused.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgpack  # type: ignore[import-untyped]  # it ships no types
import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .context import TAKEN, context_of
from .problems import Problem, invalid
from .validation import NOTHING, refusal

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
BATCHES: Final = "application/vnd.cute.batch"
BODY_TIMEOUT_S: Final = 30.0
"""A body that takes longer to arrive is given up."""
SHOWN_BYTES_MAX: Final = 64 * 1024
"""Of a larger body that was refused no value is shown."""
_RAW: Final = web.RequestKey("raw_body", bytes)

T = TypeVar("T", bound=msgspec.Struct)
_Type = TypeVar("_Type")


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """The structs a body may become: in msgpack keys and values are bytes, in JSON text."""

    json: type[T]
    msgpack: type[T]

    @classmethod
    def same(cls, struct: type[T]) -> Form[T]:
        return cls(struct, struct)


async def read_body(request: web.Request) -> bytes:
    """Return the whole body; a second call returns the same bytes.

    Raises Problem: `invalid_request`, `batch_too_large`, `throttled`.
    """
    if _RAW in request:
        return request[_RAW]
    check_body_headers(request)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            raw = await _read(request)
    except TimeoutError as error:
        raise invalid("body", f"did not arrive within {BODY_TIMEOUT_S:.0f} s") from error
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise invalid("body", "its transfer encoding is broken") from error
    request[_RAW] = raw
    return raw


def check_body_headers(request: web.Request) -> None:
    """Refuse what the headers alone show to be wrong, before any of the body is read."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise invalid("Content-Encoding", "compressed bodies are not taken")
    limit = context_of(request).config.body_bytes_max
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


async def _read(request: web.Request) -> bytes:
    context = context_of(request)
    limit = context.config.body_bytes_max
    chunks: list[bytes] = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        context.bodies.take(len(chunk))
        request[TAKEN] = request.get(TAKEN, 0) + len(chunk)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> Problem:
    return Problem("batch_too_large", f"a body is at most {limit} bytes", limit_bytes=limit)


def body_type(request: web.Request) -> str:
    """Return JSON or MSGPACK; no Content-Type means JSON."""
    if "Content-Type" not in request.headers:
        return JSON
    content_type = request.content_type
    if content_type not in (JSON, MSGPACK):
        raise invalid("Content-Type", f"came {content_type!r}, wanted {JSON} or {MSGPACK}")
    return content_type


async def read_struct(request: web.Request, form: Form[T], *, empty: T | None = None) -> T:
    """Read and decode a body; `empty` stands for a body of no bytes, None refuses it."""
    raw = await read_body(request)
    if not raw:
        if empty is None:
            raise invalid("body", "is empty")
        return empty
    return decode_body(raw, body_type(request), form)


def decode_body(raw: bytes, content_type: str, form: Form[T]) -> T:
    """Decode `raw`; raises Problem `invalid_request`."""
    is_json = content_type == JSON
    wanted = form.json if is_json else form.msgpack
    name = "JSON" if is_json else "msgpack"
    try:
        value = _decode(raw, wanted, is_json)
    except msgspec.ValidationError as error:
        raise refusal(error, wanted, _untyped(raw, is_json), what="field") from error
    except UnicodeDecodeError as error:
        raise invalid("body", f"a text in it is not UTF-8: {error.reason}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("body", f"is not valid {name}: {error}") from error
    _refuse_duplicates(raw, value, is_json)
    return value


def _decode(raw: bytes, wanted: type[_Type], is_json: bool) -> _Type:
    if is_json:
        return msgspec.json.decode(raw, type=wanted)
    return msgspec.msgpack.decode(raw, type=wanted)


def _untyped(raw: bytes, is_json: bool) -> Any:
    """Decode without a type, to show what came; NOTHING if even that fails."""
    if len(raw) > SHOWN_BYTES_MAX:
        return NOTHING
    try:
        return _decode(raw, object, is_json)
    except (ValueError, RecursionError):
        return NOTHING


def _refuse_duplicates(raw: bytes, value: msgspec.Struct, is_json: bool) -> None:
    """Refuse two values under one name: which of them is meant, readers disagree on.

    msgspec keeps the last and says nothing. So compare with `value` encoded again, which has each
    name once: a name more is two quotes more in JSON, and some bytes more in msgpack. Only if there
    are more, or a quote is written in another way, a slow parser looks for the name. A field that
    was left out must be left out again (UNSET, `omit_defaults`), or it would outweigh another.
    """
    again = msgspec.json.encode(value) if is_json else msgspec.msgpack.encode(value)
    if not is_json:
        if len(again) != len(raw):
            # Arrays become tuples: one may be the name of a value.
            msgpack.unpackb(
                raw, object_pairs_hook=_unique, strict_map_key=False, raw=True, use_list=False
            )
    elif b"\\u0022" in raw or raw.count(b'"') != again.count(b'"'):
        json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[Any, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
            raise invalid(text[:100], "is there twice")
        seen.add(name)
