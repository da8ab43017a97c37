"""A stopped node's files as rows: what is in them, for people who look for something.

A row is a flat mapping of names to what JSON can hold. Every row has `file` (as seen from the data
folder), `position` (byte) and `kind`. Nothing is judged but what cannot be read: a `damage` row,
or a `remark` where a crash explains it. Bytes that nobody vouches for yet are shown, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ..storage import checkpoint
from ..storage.batch import NO_PRODUCER
from ..storage.codec import codec_name
from ..storage.errors import Damaged
from ..storage.findings import Finding
from ..storage.index import RELATIVE_OFFSET_MAX
from ..storage.log import LogState
from ..storage.log_scan import LogScan, Part, PlacedBatch
from ..storage.names import segment_names, store_path
from ..storage.stopped_folder import StoppedFolder
from ..storage.wal_frame import Frame, Kind, decode_vote
from ..storage.wal_scan import PlacedFrame, WalScan
from .commands import BadEntry, decode_commands
from .install import FETCHED, FETCHING
from .members import decode_config
from .snapshot import BadCheckpoint, StreamRow, decode_section
from .upstream import COMMAND, MEMBERS, NOOP

Row: TypeAlias = dict[str, Any]

ITEMS_SHOWN = 16
"""Longer lists are counted; so are more bytes, and shorter ones shown in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything, if nothing is chosen."""

    wal: bool = False
    checkpoint: bool = False
    streams: tuple[str, ...] = ()
    """Names, or numbers of folders: those that no checkpoint knows have no name."""
    start: int = 0
    end: int | None = None
    """Raft indexes or offsets [start, end); of no meaning to a checkpoint."""

    @property
    def is_everything(self) -> bool:
        return not (self.wal or self.checkpoint or self.streams)

    @property
    def is_range(self) -> bool:
        return self.start > 0 or self.end is not None

    def holds(self, low: int, high: int) -> bool:
        """Does the range have anything of [low, high)?"""
        return high > self.start and (self.end is None or low < self.end)


class UnknownName(Exception):
    """There is no stream of that name."""


class Dump:
    """Blocks; changes nothing."""

    def __init__(self, folder: StoppedFolder, selection: Selection) -> None:
        """Raises UnknownName, OSError."""
        self._folder = folder
        self._selection = selection
        self._rows = self._stream_rows()
        self._numbers = self._stream_numbers()

    def rows(self) -> Iterator[Row]:
        """Raises OSError."""
        selection = self._selection
        if selection.is_everything:
            yield from self._mark()
        if selection.is_everything or selection.checkpoint:
            for suffix in ("", FETCHING, FETCHED):
                yield from self._checkpoint(checkpoint.path_in(self._folder.path) + suffix)
        if selection.is_everything or selection.wal:
            yield from self._wal()
        for number in self._numbers:
            yield from self._stream(number)

    def _row(self, path: str, position: int, kind: str, **fields: object) -> Row:
        place = {"file": self._folder.relative(path), "position": position, "kind": kind}
        return place | fields

    def _finding(self, finding: Finding) -> Row:
        kind = "damage" if finding.is_damage else "remark"
        fields = {"offset": finding.offset, "index": finding.index}
        known = {name: number for name, number in fields.items() if number is not None}
        return self._row(finding.path, finding.position, kind, **known, reason=finding.reason)

    def _mark(self) -> Iterator[Row]:
        folder = self._folder
        if folder.mark is not None:
            yield self._row(f"{folder.path}/node", 0, "mark", **_shown(folder.mark))
        yield from map(self._finding, folder.findings)

    # ---- checkpoints

    def _checkpoint(self, path: str) -> Iterator[Row]:
        files = self._folder.files
        if not files.exists(path):
            return
        try:
            sections = checkpoint.read_placed(files, path)
        except Damaged as error:
            yield self._finding(Finding.of(error, path))
            return
        for position, section in sections:
            try:
                decoded = decode_section(section)
            except BadCheckpoint as error:
                yield self._finding(Finding(path, position, str(error)))
                continue
            kind = _words(type(decoded).__name__)
            fields = _shown(decoded)
            yield self._row(path, position, kind, size=len(section), **fields)

    # ---- the write-ahead log

    def _wal(self) -> Iterator[Row]:
        folder = self._folder
        for seen in WalScan(folder.files, folder.wal_folder).run():
            if isinstance(seen, Finding):
                yield self._finding(seen)
            elif self._is_wanted(seen.frame):
                yield self._frame(seen)

    def _is_wanted(self, frame: Frame) -> bool:
        """What is no entry has its place among the entries only by its place in the file."""
        selection = self._selection
        if not selection.is_range:
            return True
        return frame.kind == Kind.ENTRY and selection.holds(frame.index, frame.index + 1)

    def _frame(self, placed: PlacedFrame) -> Row:
        frame = placed.frame
        kind = Kind(frame.kind).name.lower()
        fields: Row = {"index": frame.index, "term": frame.term, "size": placed.size}
        if frame.kind == Kind.HARD_STATE:
            fields = {"term": frame.term, "vote": decode_vote(frame.payload), "size": placed.size}
        elif frame.kind == Kind.ENTRY:
            fields |= summary(frame.payload)
        return self._row(placed.path, placed.position, kind, **fields)

    # ---- the streams' segments

    def _stream_rows(self) -> dict[int, StreamRow]:
        """What the checkpoint in force knows, by the streams' numbers."""
        files, path = self._folder.files, checkpoint.path_in(self._folder.path)
        try:
            sections = checkpoint.read(files, path) if files.exists(path) else []
            rows = [decode_section(section) for section in sections]
        except (Damaged, BadCheckpoint):
            return {}
        return {row.id: row for row in rows if isinstance(row, StreamRow)}

    def _stream_numbers(self) -> list[int]:
        folder, selection = self._folder, self._selection
        names = folder.list_inside(folder.streams_folder)
        found = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        if selection.is_everything:
            return found
        named = {row.name: number for number, row in self._rows.items()}
        by_name = {str(number): number for number in found} | named
        for name in selection.streams:
            if name not in by_name:
                known = [*named, *(str(number) for number in found if number not in self._rows)]
                raise UnknownName(f"there is no stream {name}; there are: {', '.join(known)}")
        return sorted({by_name[name] for name in selection.streams})

    def _stream(self, number: int) -> Iterator[Row]:
        folder, scan = self._folder, LogScan(self._folder.files)
        stream_folder = folder.stream_folder(number)
        row = self._rows.get(number)
        state = LogState.from_list(row.log) if row is not None else LogState()
        sizes = (size for _, size in state.segments)
        vouched = dict(zip(state.names(), sizes, strict=True))
        seams = {each.base_offset: each for each in state.compacted}
        names = segment_names(folder.list_inside(stream_folder))
        for name in names:
            base_offset = name.base_offset
            above = (each.base_offset for each in names if each.base_offset > base_offset)
            high = next(above, base_offset + RELATIVE_OFFSET_MAX)
            if self._selection.is_range and not self._selection.holds(base_offset, high):
                scan = LogScan(folder.files)
                continue
            path = store_path(stream_folder, *name)
            part, durable = Part(path, 0, folder.size_of(path)), vouched.get(name, 0)
            if scan.next_offset != base_offset:
                # Behind what compaction replaced, or is about to replace, which is shown too.
                scan = LogScan(folder.files)
            seam = seams.get(base_offset) if durable else None
            for seen in scan.segment(base_offset, [part], vouched=durable, seam=seam):
                if isinstance(seen, Finding):
                    yield self._finding(seen)
                elif self._selection.holds(seen.batch.base_offset, seen.batch.next_offset):
                    stream = row.name if row is not None else None
                    yield self._batch(seen, stream, is_durable=seen.position < durable)

    def _batch(self, placed: PlacedBatch, stream: str | None, *, is_durable: bool) -> Row:
        batch = placed.batch
        producer: Row = {}
        if batch.producer_id != NO_PRODUCER:
            producer["producer"] = [batch.producer_id, batch.producer_epoch, batch.sequence]
        return self._row(
            placed.path,
            placed.position,
            "batch",
            stream=stream,
            offset=batch.base_offset,
            end_offset=batch.next_offset,
            count=batch.count,
            size=batch.size,
            codec=codec_name(batch.codec),
            timestamp=batch.timestamp,
            max_timestamp=batch.max_timestamp,
            term=batch.term,
            index=batch.index,
            is_durable=is_durable,
            **producer,
        )


def summary(payload: bytes) -> Row:
    """What a Raft entry asks for."""
    kind, body = payload[:1], memoryview(payload)[1:]
    if kind == NOOP:
        return {"commands": ["no-op"]}
    try:
        if kind == MEMBERS:
            members = decode_config(body).members
            return {"commands": ["members"], "members": [_shown(member) for member in members]}
        if kind == COMMAND:
            return {"commands": [_command(command) for command in decode_commands(body)]}
    except BadEntry as error:
        return {"commands": [f"not understood: {error}"]}
    return {"commands": [f"unknown kind {kind.hex()}"]}


def _command(command: msgspec.Struct) -> Row:
    return {"command": _words(type(command).__name__)} | _shown(command)


def _shown(struct: msgspec.Struct) -> Row:
    return {name: _value(value) for name, value in msgspec.structs.asdict(struct).items()}


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= ITEMS_SHOWN else f"{len(value)} bytes"
    if isinstance(value, msgspec.Struct):
        return _shown(value)
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        shown = len(value) <= ITEMS_SHOWN
        return [_value(each) for each in value] if shown else f"{len(value)} items"
    return value


def _words(name: str) -> str:
    """`CreateStream` → `create_stream`."""
    parts = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return "_".join(parts.split())
