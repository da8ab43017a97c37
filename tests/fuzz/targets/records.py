"""The body of a batch: `storage.record`."""

from __future__ import annotations

from cute_logger.storage.errors import CorruptBatch
from cute_logger.storage.record import decode_records, decode_rows, encode_records, record_size
from fuzz.choices import Choices, packed, type_of

_ROWS = type_of(list[tuple[bytes | None, bytes | None, dict[str, str] | None, int | None]])


def target(data: bytes) -> None:
    """Any bytes are records or a CorruptBatch; records mean the same written again."""
    choices = Choices(data)
    body = packed(choices, _ROWS) if choices.flag() else choices.rest()
    try:
        records = decode_records(body)
    except CorruptBatch:
        return
    assert len(decode_rows(body)) == len(records)
    assert all(record_size(record) <= len(body) for record in records)
    again = encode_records(records)
    assert decode_records(again) == records
    assert encode_records(decode_records(again)) == again
