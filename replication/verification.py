"""Everything on a stopped node's disk that has a checksum, read and compared.

In the order in which a start would rely on it: marks, checkpoint, write-ahead log, the streams'
segments as far as the checkpoint vouches for them, what was staged of another node's snapshot.

- *Damage*: what was promised to be durable is bad or gone.
- A *remark*: what a crash or an interrupted fetch leaves behind, which the next start deals with.

A committed snapshot that the next start puts in place counts as in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..storage import checkpoint
from ..storage.errors import Damaged
from ..storage.findings import Finding
from ..storage.log import LogState
from ..storage.log_scan import IndexCheck, LogScan, Part
from ..storage.log_state import Compacted
from ..storage.names import NEW_SUFFIX, SegmentName, index_path, segment_names, store_path
from ..storage.stopped_folder import StoppedFolder
from ..storage.wal_scan import WalScan
from .install import FETCHED, FETCHING, PIECE_SUFFIX, piece_place
from .snapshot import BadCheckpoint, Meta, StreamRow, decode_section


@dataclass(slots=True)
class Tally:
    """What was read."""

    bytes: int = 0
    frames: int = 0
    streams: int = 0
    batches: int = 0
    records: int = 0


@dataclass(slots=True)
class _Vouched:
    """What the checkpoint in force says."""

    path: str
    meta: Meta | None = None
    streams: list[StreamRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_fetched: bool = False
    is_readable: bool = True


class Verification:
    """One pass over a stopped node's folder. Blocks; changes nothing."""

    def __init__(
        self, folder: StoppedFolder, advance: Callable[[int], None] = lambda size: None
    ) -> None:
        """`advance` is told of bytes that have been read, of `bytes_total`. Raises OSError."""
        self.tally = Tally()
        self._folder = folder
        self._advance = advance
        self._vouched = self._read_checkpoints()
        segments = [size for row in self._vouched.streams for _, size in _state(row).segments]
        self.bytes_total = self.tally.bytes + sum(segments) + self._wal_bytes()

    def run(self) -> Iterator[Finding]:
        """Yield what is found, as it is found. Raises OSError."""
        self._advance(self.tally.bytes)
        yield from self._folder.findings
        yield from self._vouched.findings
        yield from self._verify_wal()
        for row in self._vouched.streams:
            self.tally.streams += 1
            yield from self._verify_stream(row)
        yield from self._look_at_staging()
        yield from self._look_behind()

    def _count(self, size: int) -> None:
        self.tally.bytes += size
        self._advance(size)

    # ---- checkpoints

    def _read_checkpoints(self) -> _Vouched:
        """The one in force is the one that the next start would put in place."""
        own_path = checkpoint.path_in(self._folder.path)
        own = self._read_checkpoint(own_path)
        if not self._folder.files.exists(own_path + FETCHED):
            return own
        fetched = self._read_checkpoint(own_path + FETCHED)
        fetched.is_fetched = True
        reason = "a fetched snapshot is complete: the next start puts it in place"
        remark = Finding(fetched.path, 0, reason, is_damage=False)
        fetched.findings = [*own.findings, remark, *fetched.findings]
        return fetched

    def _read_checkpoint(self, path: str) -> _Vouched:
        folder, vouched = self._folder, _Vouched(path)
        if not folder.files.exists(path):
            return vouched
        try:
            sections = checkpoint.read_placed(folder.files, path)
        except Damaged as error:
            vouched.findings.append(Finding.of(error, path))
            vouched.is_readable = False
            return vouched
        self.tally.bytes += folder.size_of(path)
        for position, section in sections:
            try:
                row = decode_section(section)
                if isinstance(row, StreamRow):
                    vouched.streams.append(row)
                elif isinstance(row, Meta):
                    vouched.meta = row
            except BadCheckpoint as error:
                reason = f"a section that this version does not understand: {error}"
                vouched.findings.append(Finding(path, position, reason))
        if vouched.meta is None:
            vouched.findings.append(Finding(path, 0, "it does not say what it covers"))
        return vouched

    # ---- the write-ahead log

    def _wal_bytes(self) -> int:
        folder = self._folder
        names = folder.list_inside(folder.wal_folder)
        return sum(folder.size_of(f"{folder.wal_folder}/{name}") for name in names)

    def _verify_wal(self) -> Iterator[Finding]:
        folder, meta = self._folder, self._vouched.meta
        if not folder.list_inside(folder.wal_folder):
            if meta is not None:
                yield Finding(folder.wal_folder, 0, "the write-ahead log is missing")
            return
        scan = WalScan(folder.files, folder.wal_folder)
        is_whole = True
        for seen in scan.run():
            if isinstance(seen, Finding):
                is_whole = is_whole and not seen.is_damage
                yield seen
            else:
                self.tally.frames += 1
                self._count(seen.size)
        image = scan.image
        if image is None or not is_whole or not self._vouched.is_readable:
            return
        after, term = (meta.applied_index, meta.applied_term) if meta is not None else (0, 0)
        if image.base_index > after:
            reason = f"entries {after + 1} to {image.base_index} are missing"
            yield Finding(folder.wal_folder, 0, reason, index=after + 1)
        elif image.last_index < after or image.runs.term_at(after) != term:
            reason = f"it does not hold entry {after}, which the checkpoint covers: begun anew"
            yield Finding(folder.wal_folder, 0, reason, is_damage=False, index=after)

    # ---- the streams' segments

    def _verify_stream(self, row: StreamRow) -> Iterator[Finding]:
        state, scan = _state(row), LogScan(self._folder.files)
        damaged = False
        seams = {each.base_offset: each for each in state.compacted}
        for name, (base_offset, size) in zip(state.names(), state.segments, strict=True):
            is_sealed = base_offset != state.segments[-1][0]
            seam = seams.get(base_offset)
            for found in self._verify_segment(scan, row, name, size, seam, is_sealed=is_sealed):
                damaged = damaged or found.is_damage
                yield found
        if damaged or not state.segments:
            return
        last = state.segments[-1]
        path = store_path(self._folder.stream_folder(row.id), *state.names()[-1])
        if scan.next_offset != row.next_offset or scan.next_offset != state.log_end_offset:
            reason = f"it ends at offset {scan.next_offset}, by the checkpoint at {row.next_offset}"
            yield Finding(path, last[1], reason, offset=scan.next_offset)
        elif scan.digest != row.chain:
            reason = "the chain of digests ends otherwise than the checkpoint says"
            yield Finding(path, last[1], reason, offset=scan.next_offset)

    def _verify_segment(
        self,
        scan: LogScan,
        row: StreamRow,
        name: SegmentName,
        size: int,
        seam: Compacted | None,
        *,
        is_sealed: bool,
    ) -> Iterator[Finding]:
        folder = self._folder
        stream_folder = folder.stream_folder(row.id)
        index = IndexCheck(folder.files, index_path(stream_folder, *name), name.base_offset)
        parts = self._parts(stream_folder, name, size)
        for seen in scan.segment(name.base_offset, parts, vouched=size, seam=seam):
            if isinstance(seen, Finding):
                yield seen
                return
            index.show(seen)
            self.tally.batches += 1
            self.tally.records += seen.batch.count
            self._count(seen.batch.size)
        if is_sealed:
            index.end()
        if index.fault is not None:
            # The active segment's index is never synced: after a power loss it may be anything.
            reason = f"{index.fault}; derived, it is built anew by itself"
            yield Finding(index.path, index.position, reason, is_damage=is_sealed)

    def _parts(self, stream_folder: str, wanted: SegmentName, size: int) -> list[Part]:
        """Where the bytes of a segment are: in its file, or partly in a piece yet to be placed."""
        store = store_path(stream_folder, *wanted)
        if self._vouched.is_fetched:
            for name in self._folder.list_inside(stream_folder):
                if not name.endswith(PIECE_SUFFIX):
                    continue
                segment, start = piece_place(name)
                if segment == wanted:
                    piece = Part(f"{stream_folder}/{name}", start, size)
                    return [Part(store, 0, start), piece]
        return [Part(store, 0, size)]

    # ---- what no promise rests on

    def _look_at_staging(self) -> Iterator[Finding]:
        """A fetch that was interrupted: its pieces are verified before they count."""
        folder = self._folder
        fetching = checkpoint.path_in(folder.path) + FETCHING
        if not folder.files.exists(fetching) or self._vouched.is_fetched:
            return
        try:
            checkpoint.read(folder.files, fetching)
            reason = "complete"
        except Damaged as error:
            reason = f"not complete, or bad: byte {error.position}, {error.reason}"
        reason = f"a snapshot was being fetched; its checkpoint is {reason}"
        yield Finding(fetching, 0, reason, is_damage=False)
        for stream_folder, name in self._stream_files():
            if name.endswith(PIECE_SUFFIX):
                yield self._look_at_piece(f"{stream_folder}/{name}")

    def _look_at_piece(self, path: str) -> Finding:
        size, good = self._folder.size_of(path), 0
        scan, part = LogScan(self._folder.files), Part(path, 0, size)
        segment, start = piece_place(path.rpartition("/")[2])
        first = scan.segment(segment.base_offset, [part], vouched=0)
        for seen in scan.continuation(part) if start else first:
            if not isinstance(seen, Finding):
                good = seen.position + seen.batch.size
                self._count(seen.batch.size)
        reason = f"staged: {good} of {size} bytes are whole batches"
        return Finding(path, good, reason, is_damage=False)

    def _look_behind(self) -> Iterator[Finding]:
        """Bytes and files that no checkpoint vouches for, all streams in one remark."""
        folder = self._folder
        if not self._vouched.is_readable:
            reason = "not looked at: what should be there, only the checkpoint could say"
            yield Finding(folder.streams_folder, 0, reason, is_damage=False)
            return
        vouched = {
            store_path(folder.stream_folder(row.id), *name): size
            for row in self._vouched.streams
            for state in [_state(row)]
            for name, (_, size) in zip(state.names(), state.segments, strict=True)
        }
        surplus = [
            folder.size_of(path) - vouched.get(path, 0)
            for stream_folder, name in self._stream_files()
            for path in [f"{stream_folder}/{name}"]
            if segment_names([name.removesuffix(NEW_SUFFIX)])
        ]
        behind = [size for size in surplus if size > 0]
        if behind and not self._vouched.is_fetched:
            reason = f"{sum(behind)} bytes in {len(behind)} files are behind the checkpoint: the"
            reason += " next start cuts them, what was acknowledged is in the write-ahead log"
            yield Finding(folder.streams_folder, 0, reason, is_damage=False)

    def _stream_files(self) -> Iterator[tuple[str, str]]:
        folder = self._folder
        for stream in folder.list_inside(folder.streams_folder):
            stream_folder = f"{folder.streams_folder}/{stream}"
            for name in folder.list_inside(stream_folder):
                yield stream_folder, name


def _state(row: StreamRow) -> LogState:
    return LogState.from_list(row.log)
