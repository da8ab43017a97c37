"""The state machine as a checkpoint keeps it.

A snapshot is taken on the loop, in an instant, by copying references; it is packed on the streams
lane in small pieces, because packing holds Python's lock and the loop must not wait for it.
Together with the logs' durable lengths it is one atomic unit: state and applied index can never
disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ..storage.log import LogState
from .dedupe import Appended, ProducerRow
from .groups import GroupMeta
from .groups import Row as GroupRow
from .machine import StateMachine
from .members import Config
from .segments import SegmentRow, Segments
from .stream import Stream
from .transactions import Row as TransactionRow

ROWS_PER_SECTION = 1_000

T = TypeVar("T")


class Meta(msgspec.Struct, frozen=True, array_like=True, tag=1):
    applied_index: int
    applied_term: int
    log_time: int
    cluster_id: str | None
    next_stream_id: int
    next_producer_id: int
    members: Config | None = None
    members_index: int = 0


class StreamRow(msgspec.Struct, frozen=True, array_like=True, tag=2):
    id: int
    name: str
    config: dict[str, int | str | bool]
    log_start_offset: int
    next_offset: int
    last_timestamp: int | None
    chain: bytes
    segments: list[SegmentRow]
    forgotten_until: int
    log: list[Any] = []
    """LogState of the stream's files when the checkpoint was written."""


class KeyRows(msgspec.Struct, frozen=True, array_like=True, tag=3):
    stream: str
    rows: list[tuple[str, Appended]]


class ProducerRows(msgspec.Struct, frozen=True, array_like=True, tag=4):
    rows: list[ProducerRow]


class GroupRows(msgspec.Struct, frozen=True, array_like=True, tag=6):
    rows: list[GroupRow]


class TransactionRows(msgspec.Struct, frozen=True, array_like=True, tag=7):
    rows: list[TransactionRow]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    Meta | StreamRow | KeyRows | ProducerRows | GroupMeta | GroupRows | TransactionRows
)


class Snapshot:
    """All of a StateMachine at one applied index."""

    def __init__(self, machine: StateMachine) -> None:
        self.meta = Meta(
            machine.applied_index,
            machine.applied_term,
            machine.log_time,
            machine.cluster_id,
            machine.next_stream_id,
            machine.producers.next_id,
            machine.members,
            machine.members_index,
        )
        self._streams = [_stream_row(stream) for stream in machine.streams.values()]
        self._keys = {name: stream.keys.dump() for name, stream in machine.streams.items()}
        self._producers = machine.producers.dump()
        self._group_meta = machine.groups.meta()
        self._groups = machine.groups.dump()
        self._transactions = machine.transactions.dump()

    def sections(self, logs: Mapping[int, LogState]) -> Iterator[bytes]:
        """The checkpoint's sections; `logs` says how far each stream's files are durable."""
        yield _encoder.encode(self.meta)
        for row in self._streams:
            extents = tuple((segment.base_offset, segment.size_bytes) for segment in row.segments)
            assert logs[row.id].segments == extents, "the files are not cut as apply decided"
            yield _encoder.encode(msgspec.structs.replace(row, log=logs[row.id].to_list()))
        for name, keys in self._keys.items():
            for rows in _chunks(keys):
                yield _encoder.encode(KeyRows(name, rows))
        for producers in _chunks(self._producers):
            yield _encoder.encode(ProducerRows(producers))
        yield _encoder.encode(self._group_meta)
        for groups in _chunks(self._groups):
            yield _encoder.encode(GroupRows(groups))
        for transactions in _chunks(self._transactions):
            yield _encoder.encode(TransactionRows(transactions))


def restore(sections: Iterable[bytes], machine: StateMachine) -> dict[int, LogState]:
    """Fill a fresh machine from a checkpoint; returns how far each stream's files reach."""
    logs = {}
    keys: dict[str, list[tuple[str, Appended]]] = {}
    producers: list[ProducerRow] = []
    next_producer_id = 1
    for section in map(_decoder.decode, sections):
        if isinstance(section, Meta):
            machine.applied_index = section.applied_index
            machine.applied_term = section.applied_term
            machine.log_time = section.log_time
            machine.cluster_id = section.cluster_id
            machine.next_stream_id = section.next_stream_id
            machine.members, machine.members_index = section.members, section.members_index
            next_producer_id = section.next_producer_id
        elif isinstance(section, StreamRow):
            machine.streams[section.name] = _stream(section)
            logs[section.id] = LogState.from_list(section.log)
        elif isinstance(section, KeyRows):
            keys.setdefault(section.stream, []).extend(section.rows)
        elif isinstance(section, ProducerRows):
            producers.extend(section.rows)
        elif isinstance(section, GroupMeta):
            machine.groups.load_meta(section)
        elif isinstance(section, GroupRows):
            machine.groups.load(section.rows)
        else:
            machine.transactions.load(section.rows)
    for name, rows in keys.items():
        machine.streams[name].keys.load(rows)
    machine.producers.load(next_producer_id, producers)
    return logs


def decode_section(section: bytes) -> msgspec.Struct:
    """One section, for who looks at a checkpoint without taking it over. Raises MsgspecError."""
    decoded: msgspec.Struct = _decoder.decode(section)
    return decoded


def meta_of(sections: Iterable[bytes]) -> Meta:
    """The part of a checkpoint that says what it covers."""
    return next(s for s in map(_decoder.decode, sections) if isinstance(s, Meta))


def log_states(sections: Iterable[bytes]) -> dict[int, LogState]:
    """How far each stream's files reach in a checkpoint, by stream id."""
    rows = (s for s in map(_decoder.decode, sections) if isinstance(s, StreamRow))
    return {row.id: LogState.from_list(row.log) for row in rows}


def _stream_row(stream: Stream) -> StreamRow:
    return StreamRow(
        stream.id,
        stream.name,
        stream.config,
        stream.log_start_offset,
        stream.next_offset,
        stream.last_timestamp,
        stream.chain,
        stream.segments.rows(),
        stream.keys.forgotten_until,
    )


def _stream(row: StreamRow) -> Stream:
    stream = Stream(row.id, row.name, row.config)
    stream.log_start_offset = row.log_start_offset
    stream.next_offset = row.next_offset
    stream.last_timestamp = row.last_timestamp
    stream.chain = row.chain
    stream.segments = Segments(row.segments)
    stream.keys.forgotten_until = row.forgotten_until
    return stream


def _chunks(rows: list[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while chunk := list(islice(source, ROWS_PER_SECTION)):
        yield chunk
