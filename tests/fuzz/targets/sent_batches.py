"""A batch as a client sends it: `node.http.sent_batch`."""

from __future__ import annotations

from cute_logger.client.batch_format import Cut, records_in
from cute_logger.node.http.problems import Problem
from cute_logger.node.http.sent_batch import Contents, _check_header, _parsed, contents_of
from cute_logger.replication.commands import AppendBatch, CreateStream, encode_commands
from cute_logger.storage.batch import NO_PRODUCER, Batch, build_batch
from cute_logger.storage.codec import _lz4, _zstd
from cute_logger.storage.errors import UnpacksTooLarge
from cute_logger.storage.record import Record, encode_records
from fuzz.choices import Choices, edited, packed, type_of
from fuzz.targets.batches import forged
from fuzz.targets.commands import new_machine

_ROWS = type_of(list[tuple[bytes | None, bytes | None, dict[str, str] | None, int | None]])
_RECORD_BYTES_MAX = 64
_BYTES_MAX = 1 << 16


def target(data: bytes) -> None:
    """What is taken can be applied and is read, by nodes and by the client, as it was decoded;
    what is not taken is refused with a word for its sender.
    """
    choices = Choices(data)
    match choices.below(3):
        case 0:
            raw = choices.rest()
        case 1:
            raw = forged(choices)
        case 2:
            raw = _nearly(choices)
    try:
        batch = _parsed(raw)
        _check_header(batch)
        contents = contents_of(batch, _BYTES_MAX, _RECORD_BYTES_MAX)
    except UnpacksTooLarge:
        return
    except Problem as problem:
        _check_refused(problem)
        return
    _check_taken(batch, contents)


def _check_refused(problem: Problem) -> None:
    assert problem.code == "record_too_large" or problem.facts["field"]


def _nearly(choices: Choices) -> bytes:
    """Return a batch with the right header for about the records it has."""
    body = packed(choices, _ROWS)
    if choices.below(4) == 3:
        body = edited(body, choices)
    codec = choices.below(3)
    compress = (bytes, _zstd().compress, _lz4().compress)[codec]
    count = body[0] & 0x0F if body else 0
    return bytes(
        build_batch(
            compress(body),
            codec=codec,
            count=max(1, count),
            base_offset=0,
            timestamp=0,
            max_timestamp=choices.below(4),
            producer_id=choices.below(9) if choices.flag() else None,
        ).data
    )


def _check_taken(batch: Batch, contents: Contents) -> None:
    records = batch.records()
    assert len(records) == batch.count
    rows = [Record(r.value, r.key, r.headers, None) for r in records]
    assert len(encode_records(rows)) <= _BYTES_MAX
    stamp = (batch.producer_id, batch.producer_epoch, batch.sequence)
    command = AppendBatch(
        "s",
        bytes(batch.body),
        batch.count,
        contents.record_bytes_max,
        1_000,
        contents.max_timestamp,
        None,
        None if batch.producer_id == NO_PRODUCER else stamp,
        None,
        contents.digest,
        batch.codec,
    )
    machine = new_machine()
    machine.apply(1, 1, memoryview(encode_commands([CreateStream("s", {}, 1), command])))
    found = machine.recent.read(1, 0, 1 << 20)
    for stored in found or ():
        read, next_offset = records_in(bytes(stored.data), Cut(0, 1 << 62, None, 1 << 30))
        assert next_offset == stored.next_offset
        assert [(r.key, r.value, dict(r.headers)) for r in read] == [
            (r.key, r.value, dict(r.headers)) for r in records
        ]
        assert [r.timestamp for r in read] == [r.timestamp for r in stored.records()]
