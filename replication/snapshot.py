"""The state machine as a checkpoint keeps it.

A snapshot is taken on the loop, in an instant, by copying references; it is packed on the streams
lane in small pieces, because packing holds Python's lock and the loop must not wait for it.
Together with the logs' durable lengths it is one atomic unit: state and applied index can never
disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from ..storage.batch import CHAIN_START
from ..storage.errors import StorageError
from ..storage.log import LogState
from ..storage.log_state import Compacted
from ..storage.names import SegmentName
from ..storage.wal_frame import Number
from .commands import CompactedRun, Timestamp
from .dedupe import Appended, ProducerRow
from .groups import GroupMeta
from .groups import Row as GroupRow
from .indexes import IndexDefinition
from .machine import StateMachine
from .members import Config
from .segments import SegmentRow, Segments
from .stream import Stream
from .transactions import Row as TransactionRow

ROWS_PER_SECTION = 1_000

T = TypeVar("T")
_Digest: TypeAlias = Annotated[
    bytes, msgspec.Meta(min_length=len(CHAIN_START), max_length=len(CHAIN_START))
]


class BadCheckpoint(StorageError):
    """The sections of a checkpoint, each of them as it was written, make no state."""


class Meta(msgspec.Struct, frozen=True, array_like=True, tag=1):
    applied_index: Number
    applied_term: Number
    log_time: Timestamp
    cluster_id: str | None
    next_stream_id: Number
    next_producer_id: Number
    members: Config | None = None
    members_index: Number = 0


class StreamRow(msgspec.Struct, frozen=True, array_like=True, tag=2):
    id: Number
    name: str
    config: dict[str, int | str | bool]
    log_start_offset: Number
    next_offset: Number
    last_timestamp: Timestamp | None
    chain: _Digest
    segments: list[SegmentRow]
    forgotten_until: int
    log: list[Any] = []
    """LogState of the stream's files when the checkpoint was written."""
    cleaned_until: Number = 0
    cleanings: list[tuple[Number, Timestamp]] = []
    compactions: list[CompactedRun] = []
    """In `segments`, and not yet done to the files."""


class KeyRows(msgspec.Struct, frozen=True, array_like=True, tag=3):
    stream: str
    rows: list[tuple[str, Appended]]


class ProducerRows(msgspec.Struct, frozen=True, array_like=True, tag=4):
    rows: list[ProducerRow]


class GroupRows(msgspec.Struct, frozen=True, array_like=True, tag=6):
    rows: list[GroupRow]


class TransactionRows(msgspec.Struct, frozen=True, array_like=True, tag=7):
    rows: list[TransactionRow]


class IndexRows(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """All definitions; a checkpoint without it has none, and never had one."""

    next_index_id: Number
    rows: list[tuple[str, str, Number, str, str]]
    """stream, name, id, kind, on."""


_encoder = msgspec.msgpack.Encoder()
Section: TypeAlias = (
    Meta | StreamRow | KeyRows | ProducerRows | GroupMeta | GroupRows | TransactionRows | IndexRows
)
_decoder: msgspec.msgpack.Decoder[Section] = msgspec.msgpack.Decoder(Section)


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
        runs = defaultdict[int, list[CompactedRun]](list)
        for stream_id, run in machine.compactions:
            runs[stream_id].append(run)
        self._streams = [
            _stream_row(stream, runs.get(stream.id, [])) for stream in machine.streams.values()
        ]
        self._keys = {name: stream.keys.dump() for name, stream in machine.streams.items()}
        self._producers = machine.producers.dump()
        self._group_meta = machine.groups.meta()
        self._groups = machine.groups.dump()
        self._transactions = machine.transactions.dump()
        self._indexes = IndexRows(
            machine.next_index_id,
            [
                (stream.name, name, index.id, index.kind, index.on)
                for stream in machine.streams.values()
                for name, index in stream.indexes.items()
            ],
        )

    def sections(self, logs: Mapping[int, LogState]) -> Iterator[bytes]:
        """The checkpoint's sections; `logs` says how far each stream's files are durable."""
        yield _encoder.encode(self.meta)
        for row in self._streams:
            log = logs[row.id]
            left = _undone(row.compactions, log)
            row = msgspec.structs.replace(row, log=log.to_list(), compactions=left)
            assert _is_of(row, log), f"the files are not cut as apply decided: {row}"
            yield _encoder.encode(row)
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
        if self._indexes.next_index_id > 1:
            yield _encoder.encode(self._indexes)


def restore(sections: Iterable[bytes], machine: StateMachine) -> dict[int, LogState]:
    """Fill a fresh machine from a checkpoint; returns how far each stream's files reach.

    Raises BadCheckpoint.
    """
    logs: dict[int, LogState] = {}
    keys: dict[str, list[tuple[str, Appended]]] = {}
    producers: list[ProducerRow] = []
    indexes = IndexRows(1, [])
    next_producer_id = 1
    for section in _decoded(sections):
        if isinstance(section, Meta):
            machine.applied_index = section.applied_index
            machine.applied_term = section.applied_term
            machine.log_time = section.log_time
            machine.cluster_id = section.cluster_id
            machine.next_stream_id = section.next_stream_id
            machine.members, machine.members_index = section.members, section.members_index
            next_producer_id = section.next_producer_id
        elif isinstance(section, StreamRow):
            if section.name in machine.streams or section.id in logs:
                raise BadCheckpoint(f"stream {section.name} is there twice")
            machine.streams[section.name] = _stream(section)
            machine.compactions += [(section.id, run) for run in section.compactions]
            logs[section.id] = _log_state(section)
        elif isinstance(section, KeyRows):
            keys.setdefault(section.stream, []).extend(section.rows)
        elif isinstance(section, ProducerRows):
            producers.extend(section.rows)
        elif isinstance(section, GroupMeta):
            machine.groups.load_meta(section)
        elif isinstance(section, GroupRows):
            machine.groups.load(section.rows)
        elif isinstance(section, IndexRows):
            indexes = section
        else:
            machine.transactions.load(section.rows)
    _check_names(machine, keys, producers)
    for name, rows in keys.items():
        machine.streams[name].keys.load(rows)
    machine.producers.load(next_producer_id, producers)
    _load_indexes(machine, indexes)
    return logs


def _load_indexes(machine: StateMachine, indexes: IndexRows) -> None:
    machine.next_index_id = indexes.next_index_id
    for stream, name, number, kind, on in indexes.rows:
        found = machine.streams.get(stream)
        if found is None or name in found.indexes or number >= indexes.next_index_id:
            raise BadCheckpoint(f"index {name} of {stream} is twice or of no stream")
        found.indexes[name] = IndexDefinition(number, kind, on)


def _check_names(
    machine: StateMachine, keys: Iterable[str], producers: Iterable[ProducerRow]
) -> None:
    """Is everything about a stream that there is, and no name there twice?"""
    strays = {*keys, *(stream for _, stream, _ in machine.groups.dump())} - machine.streams.keys()
    if strays:
        raise BadCheckpoint(f"keys or positions of {min(strays)}, which is no stream")
    names = [row.name for row in producers if row.name is not None]
    if len(set(names)) < len(names):
        raise BadCheckpoint("two producers have one name")


def decode_section(packed: bytes) -> Section:
    """One section, whatever else the checkpoint holds. Raises BadCheckpoint."""
    try:
        section = _decoder.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"a section is not understood: {error}") from None
    if isinstance(section, StreamRow):
        try:
            LogState.from_list(section.log)
        except ValueError as error:
            raise BadCheckpoint(f"stream {section.name}: {error}") from None
    return section


def meta_of(sections: Iterable[bytes]) -> Meta:
    """The part of a checkpoint that says what it covers. Raises BadCheckpoint."""
    meta = next(_decoded(sections))
    assert isinstance(meta, Meta)
    return meta


def log_states(sections: Iterable[bytes]) -> dict[int, LogState]:
    """How far each stream's files reach in a checkpoint, by stream id. Raises BadCheckpoint."""
    rows = (section for section in _decoded(sections) if isinstance(section, StreamRow))
    return {row.id: _log_state(row) for row in rows}


def _decoded(sections: Iterable[bytes]) -> Iterator[Section]:
    """The sections, of which the first one and no other is the Meta."""
    is_first = True
    for section in map(decode_section, sections):
        if isinstance(section, Meta) != is_first:
            raise BadCheckpoint("what the checkpoint covers is not said, or twice")
        is_first = False
        yield section
    if is_first:
        raise BadCheckpoint("the checkpoint is empty")


def _log_state(row: StreamRow) -> LogState:
    state = LogState.from_list(row.log)
    if not _is_of(row, state):
        raise BadCheckpoint(f"stream {row.name}: its files are not its segments")
    if state.log_end_offset != row.next_offset or row.log_start_offset > row.next_offset:
        raise BadCheckpoint(f"stream {row.name}: its files end elsewhere")
    return state


def _undone(runs: list[CompactedRun], state: LogState) -> list[CompactedRun]:
    """Those whose segments are among the files, or are made by one before them."""
    names, undone = set(state.names()), []
    for run in runs:
        if run.inputs[0] in names:
            undone.append(run)
            names.add(SegmentName(run.base_offset, run.generation))
    return undone


def _is_of(row: StreamRow, state: LogState) -> bool:
    """Are the files as the segments say, once what waits to be done to them is done?

    Trimmed segments may still be in the list of files: a compaction needed them.
    """
    sizes = (size for _, size in state.segments)
    files = list(zip(state.names(), sizes, strict=True))
    seams = {(each.base_offset, each.generation): each for each in state.compacted}
    for run in row.compactions:
        names = [name for name, _ in files]
        first = names.index(run.inputs[0]) if run.inputs[0] in names else len(names)
        if names[first : first + len(run.inputs)] != run.inputs:
            return False
        name = SegmentName(run.base_offset, run.generation)
        files[first : first + len(run.inputs)] = [(name, run.size_bytes)]
        seams[name] = Compacted(*name, run.digest, run.bridge)
    surplus = len(files) - len(row.segments)
    kept = files[max(0, surplus) :]
    if [(each.name, each.size_bytes) for each in row.segments] != kept:
        return False
    if surplus > 0 and (not kept or kept[0][0].base_offset > row.log_start_offset):
        return False
    known = [seams.get(name) for name, _ in kept if name.generation]
    return known == [
        Compacted(*each.name, each.digest, each.bridge) for each in row.segments if each.generation
    ]


def _stream_row(stream: Stream, runs: list[CompactedRun]) -> StreamRow:
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
        cleaned_until=stream.cleaned_until,
        cleanings=stream.cleanings.copy(),
        compactions=runs,
    )


def _stream(row: StreamRow) -> Stream:
    stream = Stream(row.id, row.name, row.config)
    stream.log_start_offset = row.log_start_offset
    stream.next_offset = row.next_offset
    stream.last_timestamp = row.last_timestamp
    stream.chain = row.chain
    stream.segments = Segments(row.segments)
    stream.keys.forgotten_until = row.forgotten_until
    stream.cleaned_until = row.cleaned_until
    stream.cleanings = row.cleanings.copy()
    return stream


def _chunks(rows: list[T]) -> Iterator[list[T]]:
    source = iter(rows)
    while chunk := list(islice(source, ROWS_PER_SECTION)):
        yield chunk
