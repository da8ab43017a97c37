"""From the bytes of a fuzzer to decisions, values and damage.

A target that needs more than raw bytes (a checksum that fits, a folder of files) spends its input
on choices, so that whoever mutates the input mutates what is built from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

_EDGES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63))
_NESTED_MAX = 6


class Choices:
    """Spends `data` from its beginning; zeros when nothing is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return max(0, len(self._data) - self._at)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        return self.take(self.left)

    def below(self, count: int) -> int:
        """Return a number from 0 to before `count`."""
        size = (max(1, count - 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % max(1, count)

    def flag(self) -> bool:
        return self.below(2) == 1

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def number(self) -> int:
        """Return any number that msgpack can hold: small ones, edges, all others."""
        match self.below(4):
            case 0:
                return self.below(256)
            case 1:
                return self.pick(_EDGES)
            case 2:
                return self.below(1 << 16)
        return int.from_bytes(self.take(8).ljust(8, b"\0"), "little")

    def binary(self, size_max: int = 64) -> bytes:
        return self.take(self.below(size_max + 1))

    def text(self, size_max: int = 16) -> str:
        return self.binary(size_max).decode("utf-8", "replace")

    def value(self, wanted: inspect.Type, depth: int = 0) -> Any:
        """Return what msgpack or JSON encodes to about a `wanted`; now and then to something
        else.
        """
        if depth > _NESTED_MAX:
            wanted = self.pick(_OTHERS[:_SCALARS])
        elif self.below(24) == 23:
            wanted = self.pick(_OTHERS)
        return self._value(wanted, depth + 1)

    def _value(self, wanted: inspect.Type, depth: int) -> Any:
        match wanted:
            case inspect.IntType():
                return self.number()
            case inspect.StrType():
                return self.text(255 if self.below(16) == 15 else 16)
            case inspect.BytesType():
                return self.binary()
            case inspect.BoolType():
                return self.flag()
            case inspect.FloatType():
                return self.number() / 3
            case inspect.LiteralType(values):
                return self.pick(values)
            case inspect.UnionType(types):
                return self._value(self.pick(types), depth)
            case inspect.AnyType() | inspect.RawType():
                return self._value(self.pick(_OTHERS), depth)
        return self._collection(wanted, depth)

    def _collection(self, wanted: inspect.Type, depth: int) -> Any:
        match wanted:
            case inspect.ListType() | inspect.VarTupleType():
                return [self.value(wanted.item_type, depth) for _ in range(self.below(5))]
            case inspect.TupleType(types):
                return [self.value(each, depth) for each in types]
            case inspect.NamedTupleType():
                return [self.value(field.type, depth) for field in wanted.fields]
            case inspect.DictType():
                names = [str(self.value(wanted.key_type, depth)) for _ in range(self.below(5))]
                return {name: self.value(wanted.value_type, depth) for name in names}
            case inspect.StructType():
                return self._struct(wanted, depth)
        return None

    def _struct(self, wanted: inspect.StructType, depth: int) -> Any:
        if wanted.array_like:
            count = (
                len(wanted.fields) if self.below(16) < 15 else self.below(len(wanted.fields) + 1)
            )
            tag = [] if wanted.tag is None else [wanted.tag]
            return [*tag, *(self.value(field.type, depth) for field in wanted.fields[:count])]
        return {
            field.encode_name: self.value(field.type, depth)
            for field in wanted.fields
            if field.required or self.flag()
        }


_SCALARS = 5
_OTHERS: tuple[inspect.Type, ...] = (
    inspect.IntType(),
    inspect.StrType(),
    inspect.BytesType(),
    inspect.NoneType(),
    inspect.BoolType(),
    inspect.ListType(inspect.IntType()),
    inspect.DictType(inspect.StrType(), inspect.IntType()),
)


def type_of(wanted: Any) -> inspect.Type:
    return inspect.type_info(wanted)


def packed(choices: Choices, wanted: inspect.Type) -> bytes:
    """Return msgpack of about a `wanted`, its bytes edited now and then."""
    data = msgspec.msgpack.encode(choices.value(wanted))
    return edited(data, choices) if choices.below(4) == 3 else data


def edited(data: bytes, choices: Choices) -> bytes:
    """Return `data` with up to four bytes changed, put in or left out."""
    edits = bytearray(data)
    for _ in range(1 + choices.below(4)):
        at = choices.below(len(edits) + 1)
        match choices.below(4):
            case 0:
                edits[at : at + 1] = choices.take(1)
            case 1:
                edits[at:at] = choices.binary(8)
            case 2:
                del edits[at : at + 1 + choices.below(16)]
            case 3:
                edits[at : at + 1] = bytes(
                    byte ^ (1 << choices.below(8)) for byte in edits[at : at + 1]
                )
    return bytes(edits)


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
