"""What a search asks for: a value, or a range of values, of a record's source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from ..storage.index_values import TEXT, Source, Value, encode, escaped, is_cut
from .errors import BadSearch

_LAST: Final = b"\xff" * 9
"""Behind every offset."""


@dataclass(frozen=True, slots=True)
class Asked:
    """As it came. One of `eq`, `prefix`, or `ge` and `lt`, or one of these two."""

    eq: bytes | None = None
    ge: bytes | None = None
    lt: bytes | None = None
    prefix: bytes | None = None
    is_descending: bool = False

    def digest(self) -> bytes:
        """Tells a cursor of this search from those of others."""
        return xxh3_64_digest(
            msgspec.msgpack.encode((self.eq, self.ge, self.lt, self.prefix, self.is_descending))
        )


class Terms:
    """`asked`, as values of a source."""

    def __init__(self, asked: Asked, source: Source) -> None:
        """Raises BadSearch."""
        _check(asked)
        self.is_descending = asked.is_descending
        self.point: bytes | None = None
        """The value that all of them have, as an index has it; None for a range."""
        self._eq = self._ge = self._lt = None
        self._prefix = asked.prefix
        if asked.eq is not None:
            self._eq = source.parse(asked.eq)
            self.point = encode(self._eq)
        if asked.ge is not None:
            self._ge = source.parse(asked.ge)
        if asked.lt is not None:
            self._lt = source.parse(asked.lt)
        self._low, self._high = self._span()

    def span(self) -> tuple[bytes, bytes]:
        """Keys of a tree in `[low, high)` are all that may be accepted."""
        return self._low, self._high

    def _span(self) -> tuple[bytes, bytes]:
        if self._eq is not None and self.point is not None:
            return self.point, self.point + _LAST
        if self._prefix is not None:
            low = bytes([TEXT]) + escaped(self._prefix)
            return low, _behind(low)
        low = encode(self._ge) if self._ge is not None else bytes([_rank(self._lt)])
        if self._lt is None:
            return low, bytes([_rank(self._ge) + 1])
        high = encode(self._lt)
        return low, high + _LAST if is_cut(self._lt) else high

    def accept(self, value: Value) -> bool:
        """Is a record with this value one that is asked for?"""
        if self._eq is not None:
            return value == self._eq
        if self._prefix is not None:
            return value.rank == TEXT and value.exact.startswith(self._prefix)
        is_open = self._ge is None or self._lt is None
        if is_open and value.rank != _rank(self._ge if self._lt is None else self._lt):
            return False
        return (self._ge is None or value >= self._ge) and (self._lt is None or value < self._lt)


def _check(asked: Asked) -> None:
    ranges = asked.ge is not None or asked.lt is not None
    given = [asked.eq is not None, asked.prefix is not None, ranges]
    if not any(given):
        raise BadSearch("eq: this parameter is needed, or ge, lt or prefix", field="eq")
    if sum(given) > 1:
        field = "prefix" if asked.prefix is not None else "eq"
        raise BadSearch(f"{field}: eq, prefix, and ge with lt exclude each other", field=field)


def _rank(value: Value | None) -> int:
    assert value is not None
    return value.rank


def _behind(low: bytes) -> bytes:
    """The smallest bytes above all that begin with `low`."""
    kept = low.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])
