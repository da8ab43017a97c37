"""A record as one sends it and gets it, and the checks on what one sends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

TIMESTAMP_MAX = 2**63 - 1


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record. `offset` is None until the record was read from a stream.

    A msgspec struct, because millions are read: it is made in a tenth of the time that a frozen
    dataclass takes, and the garbage collector does not look at it.
    """

    value: bytes | None
    """None is a tombstone: the key's earlier records count as deleted."""
    key: bytes | None = None
    headers: Mapping[str, str] = {}
    timestamp: int | None = None
    """ms since the Unix epoch; when sent as None, the leader's clock is used."""
    offset: int | None = None


def record_of(
    value: Record | bytes | str | None,
    *,
    key: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timestamp: int | None = None,
) -> Record:
    """Return what is to be sent as a checked `Record`; a str becomes its UTF-8 bytes.

    Raises TypeError for a wrong type and ValueError for a record that came with a second key,
    headers or timestamp, or for a timestamp out of range.
    """
    if isinstance(value, Record):
        if key is not None or headers is not None or timestamp is not None:
            raise ValueError("a Record brings its own key, headers and timestamp")
        record = value
        value, key = record.value, record.key
        headers, timestamp = record.headers, record.timestamp
    return Record(
        value=_bytes_of("value", value),
        key=_bytes_of("key", key),
        headers=_checked_headers(headers) if headers else NO_HEADERS,
        timestamp=_checked_timestamp(timestamp) if timestamp is not None else None,
    )


def records_of(
    value: Record | bytes | str | list[Record | bytes | str] | None,
    *,
    key: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timestamp: int | None = None,
) -> list[Record]:
    """Return one batch: a single value, or a list whose items carry their own key and headers.

    Raises TypeError and ValueError as `record_of` does, and ValueError for an empty list.
    """
    if not isinstance(value, list | tuple):
        return [record_of(value, key=key, headers=headers, timestamp=timestamp)]
    if not value:
        raise ValueError("a batch needs at least one record")
    if key is not None or headers is not None or timestamp is not None:
        raise ValueError("give key, headers and timestamp in each Record of the list")
    if any(item is None for item in value):
        raise TypeError("a list holds Record, bytes or str; a tombstone is Record(None, key=…)")
    return [record_of(item) for item in value]


def _bytes_of(name: str, value: object) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{name}: bytes or str is wanted, not {type(value).__name__}")


def _checked_headers(headers: object) -> Mapping[str, str]:
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers: a mapping is wanted, not {type(headers).__name__}")
    for name, text in headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"headers: names and values are str, not {name!r}: {text!r}")
    # Of the exact types: subclasses are not packed.
    return {str.__str__(name): str.__str__(text) for name, text in headers.items()}


def _checked_timestamp(timestamp: object) -> int:
    if not isinstance(timestamp, int) or isinstance(timestamp, bool):
        raise TypeError(f"timestamp: ms as int is wanted, not {type(timestamp).__name__}")
    if not 0 <= timestamp <= TIMESTAMP_MAX:
        raise ValueError(f"timestamp: {timestamp} is not between 0 and 2**63 - 1 ms")
    return int(timestamp)
