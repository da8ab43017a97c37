"""What a record is found by in an index: a value taken from it, and that value's bytes in order.

A *source* says where the value is: `key`, `header:NAME`, or `value:` and a JSON pointer (RFC 6901;
`value:` alone is the whole value). A value's bytes count as JSON if all of them are one JSON text,
else as msgpack if they are one msgpack object; otherwise the record is not in the index. Nor is one
that has nothing there, an array or object there, NaN, a document nested deeper than NESTING_MAX or
larger than DOCUMENT_BYTES_MAX. Nothing that a client can send raises.

Values are ordered null < false < true < numbers < texts. Numbers are compared exactly, whatever
their size and type; texts (msgpack's binary too) byte by byte. In an index a value is

    null, false, true   one byte: 1, 2, 3
    number              4 │ float64, order-preserving, 8 │ what is missing to the exact integer
    text                5 │ bytes, 00 as 00 ff │ 00 00

and `memcmp` orders these as the values. A text is cut to TEXT_BYTES_MAX: who meets one that was cut
looks at the record itself.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from .record import StoredRecord

NESTING_MAX: Final = 64
DOCUMENT_BYTES_MAX: Final = 1 << 20
TEXT_BYTES_MAX: Final = 480
POINTER_PARTS_MAX: Final = 32

NULL, FALSE, TRUE, NUMBER, TEXT = 1, 2, 3, 4, 5

_PLACE = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_FLOAT = struct.Struct(">d")
_BITS = struct.Struct(">Q")
_SIGN = 1 << 63
_EXACT = 0x80
_TEXT_TAG = bytes([TEXT])
_END = b"\0\0"
_BAD_DOCUMENT = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class Value(NamedTuple):
    """Compares as the index orders."""

    rank: int
    exact: Any
    """A number or bytes, 0 for the others."""


Find: TypeAlias = Callable[[StoredRecord], Value | None]


class Source(NamedTuple):
    """Where a record's value is."""

    find: Find
    """The value of a record; None if it has none."""
    parse: Callable[[bytes], Value]
    """The value that somebody asks for: the text itself, or where values are JSON what it says in
    JSON, if it is null, a truth value, a number or a string in quotes."""


def source_of(on: str) -> Source:
    """Raises ValueError for anything but `key`, `header:NAME`, `value:` and `value:/pointer`."""
    kind, colon, rest = on.partition(":")
    if kind == "key" and not colon:
        return Source(_find_key, text)
    if kind == "header" and rest:
        return Source(lambda record: _header(record.headers, rest), text)
    if kind == "value" and colon:
        parts = _parts(rest)
        return Source(lambda record: _inside(record.value, parts), parse_literal)
    raise ValueError("wanted key, header:NAME or value:/json/pointer")


def _find_key(record: StoredRecord) -> Value | None:
    key = record.key
    return None if key is None else Value(TEXT, key)


def _header(headers: Mapping[str, str], name: str) -> Value | None:
    found = headers.get(name)
    return None if found is None else Value(TEXT, found.encode())


def _parts(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError("a JSON pointer begins with /")
    parts = pointer.split("/")[1:]
    if len(parts) > POINTER_PARTS_MAX:
        raise ValueError(f"a JSON pointer of more than {POINTER_PARTS_MAX} parts")
    for part in parts:
        if "~" in part.replace("~0", "").replace("~1", ""):
            raise ValueError("in a JSON pointer ~ stands as ~0 and / as ~1")
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


def _inside(data: bytes | None, parts: list[str]) -> Value | None:
    if not data or len(data) > DOCUMENT_BYTES_MAX:
        return None
    try:
        found = _document(data)
    except _BAD_DOCUMENT:
        return None
    if len(data) > NESTING_MAX and _is_deep(found):
        return None
    for part in parts:
        if isinstance(found, dict):
            if part not in found:
                return None
            found = found[part]
        elif isinstance(found, list):
            place = _place(part)
            if place is None or place >= len(found):
                return None
            found = found[place]
        else:
            return None
    return value_of(found)


def _place(part: str) -> int | None:
    """The place in an array that a part of a pointer names."""
    return int(part) if _PLACE.fullmatch(part) else None


def _document(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except _BAD_DOCUMENT:
        return msgspec.msgpack.decode(data)


def _is_deep(document: Any) -> bool:
    """Whether decoding it could fail elsewhere, where less stack is left."""
    level = [document] if type(document) in (dict, list) else []
    for _ in range(NESTING_MAX):
        if not level:
            return False
        level = [
            child
            for each in level
            for child in (each.values() if type(each) is dict else each)
            if type(child) in (dict, list)
        ]
    return True


def value_of(found: Any) -> Value | None:
    """The value of what JSON or msgpack holds at a place; None if it cannot be in an index."""
    kind = type(found)
    if kind is str:
        return Value(TEXT, found.encode())
    if kind is bytes:
        return Value(TEXT, found)
    if found is None:
        return Value(NULL, 0)
    if kind is bool:
        return Value(TRUE if found else FALSE, 0)
    if kind is int or kind is float:
        try:
            is_number = not math.isnan(float(found))
        except OverflowError:
            is_number = False
        return Value(NUMBER, found) if is_number else None
    return None


def text(asked: bytes) -> Value:
    return Value(TEXT, asked)


def parse_literal(asked: bytes) -> Value:
    try:
        found = value_of(msgspec.json.decode(asked))
    except _BAD_DOCUMENT:
        found = None
    return text(asked) if found is None else found


def encode(value: Value) -> bytes:
    """The value's bytes in an index."""
    rank = value.rank
    if rank == TEXT:
        return _TEXT_TAG + escaped(value.exact) + _END
    if rank == NUMBER:
        return _number(value.exact)
    return bytes([rank])


def is_cut(value: Value) -> bool:
    """Whether other values may have the same bytes in an index."""
    return value.rank == TEXT and len(escaped(value.exact)) >= TEXT_BYTES_MAX


def escaped(data: bytes) -> bytes:
    """`data` as it stands in an index, cut, without its end."""
    cut = data[:TEXT_BYTES_MAX]
    if 0 not in cut:
        return cut
    cut = cut.replace(b"\0", b"\0\xff")[:TEXT_BYTES_MAX]
    return cut[:-1] if cut.endswith(b"\0") else cut


def _number(number: int | float) -> bytes:
    near = float(number) + 0.0  # one zero, not two
    bits = _BITS.unpack(_FLOAT.pack(near))[0]
    head = _BITS.pack(bits ^ (2**64 - 1) if bits & _SIGN else bits | _SIGN)
    rest = int(number) - int(near) if type(number) is int else 0
    size = (abs(rest).bit_length() + 7) // 8
    if rest >= 0:
        tail = bytes([_EXACT + size]) + rest.to_bytes(size, "big")
    else:
        tail = bytes([_EXACT - size]) + (256**size - 1 + rest).to_bytes(size, "big")
    return bytes([NUMBER]) + head + tail
