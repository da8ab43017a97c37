"""A log: the segments of one folder, one behind the other.

- Offsets are dense: a batch is only taken at the log end offset.
- All segments but the last are sealed: they never change, whatever is appended. Compaction puts
  another one in the place of some, with fewer records at the same offsets.
- Trimmed away are only sealed segments, whole ones: the newest batch, and with it the log end
  offset and the chain, is always there. A log may begin in the middle of its first segment.
- Nothing is durable before `sync`. What it returns is a promise that a checkpoint can keep and give
  back to `Log.open` as `vouched`; a log opened without one relies on its files alone.
- After a failed write nothing works any more (`Poisoned`): what reached the disk is unknown.
- Memory does not grow with the log: three numbers per segment, a few open files.

A `Log` has no lock: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from . import log_opening
from .batch import CHAIN_START, Batch, build_batch
from .cleaner import compact_log
from .errors import BadCopy, DamagedBatch, OffsetOutOfRange, Poisoned
from .filesystem import OS_FILES, FileSystem
from .idle_segments import IdleSegments
from .log_segments import LogSegments
from .log_state import LogConfig as LogConfig
from .log_state import LogState as LogState
from .log_state import check_segment_bytes_max
from .names import SegmentName
from .record import Record, StoredRecord, encode_records
from .sealed import SealedSegment
from .segment import Segment
from .segment_writer import SegmentWriter
from .store import parse_all

_DEFAULT_CONFIG = LogConfig()
_PIECE_BYTES = 256 * 1024
KEYS_MAX = 500_000
"""Told apart by one compaction: 100 MB of memory at most."""


class Log:
    """An append-only sequence of batches on disk; `open` makes one."""

    def __init__(
        self, folder: str, config: LogConfig, files: FileSystem, idle: IdleSegments
    ) -> None:
        self.log_start_offset = 0
        """The smallest offset that can be read."""
        self.log_end_offset = 0
        """The offset the next record gets."""
        self.last_batch: Batch | None = None
        """The newest batch's header: its `data` has no body."""
        self.last_digest = CHAIN_START
        """The newest batch's digest, which the next one carries as its `chain`."""
        self._segments = LogSegments(folder, config, files, idle)
        self.swaps = 0
        """How often a segment took the place of others."""
        self.keeps_trimmed = False
        """Segments stay although they are trimmed, until a trim without it: a compaction that is
        agreed upon needs them.
        """
        self._failure: BaseException | None = None
        self._is_closed = False

    @classmethod
    def open(
        cls,
        folder: str,
        config: LogConfig = _DEFAULT_CONFIG,
        *,
        files: FileSystem = OS_FILES,
        vouched: LogState | None = None,
        on_damage: Callable[[DamagedBatch], None] | None = None,
        idle: IdleSegments | None = None,
    ) -> Log:
        """Open the log in `folder`, or begin one.

        With `vouched`, the state an earlier `sync` returned, the log is exactly that: segments it
        does not list are removed, longer files cut, and Damaged is raised if one is missing or
        shorter, or if its last batch cannot be read. With `on_damage`, which is told, such a log is
        opened all the same, to be mended: missing bytes are damaged ones, and the newest batch may
        be unknown until the next. Reads no more than the end of the last segment.

        Without, the log is what the files hold: it begins where its first segment does, a trim into
        the middle of that one is forgotten; the last segment is walked, a torn tail is cut, and
        Damaged is raised if there is a good batch behind a bad one. Such a log syncs a segment
        before it begins the next one: only its last segment can be torn.

        Sealed segments are checked when they are read; some stay open, in `idle` if logs of one
        thread share it. Blocks.
        """
        log = cls(folder, config, files, IdleSegments() if idle is None else idle)
        try:
            segments = log._segments
            log_opening.prepare_folder(segments, is_vouched=bool(vouched and vouched.segments))
            log.log_start_offset, log.log_end_offset = (
                log_opening.find(segments)
                if vouched is None
                else log_opening.take_vouched(segments, vouched, on_damage)
            )
            newest = segments.newest()
            if newest is not None:
                if newest.damage is not None:
                    if on_damage is None:
                        raise newest.damage
                    on_damage(newest.damage)
                log._end_at(newest)
        except BaseException:
            log.close()
            raise
        return log

    @property
    def size_bytes(self) -> int:
        """Bytes of all batches."""
        return self._segments.size_bytes

    @property
    def segment_count(self) -> int:
        return self._segments.count

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches at the log end, those for one segment in one write.

        On return they can be read; `sync` makes them durable. Raises ValueError, with nothing
        written, if one does not begin where the one before it ended.
        """
        self._check()
        due_offset = self.log_end_offset
        for batch in batches:
            assert len(batch.data) == batch.size, "a batch without its body"
            if batch.base_offset != due_offset:
                raise ValueError(f"base offset {batch.base_offset} where {due_offset} is due")
            due_offset = batch.next_offset
        with self._writing():
            rest = list(batches)
            while rest:
                segment, count = self._segments.append(rest)
                del rest[:count]
                self._end_at(segment)
            self._drop_trimmed()

    def append_records(self, records: Sequence[Record], *, timestamp: int) -> Batch:
        """Write `records` as one batch taken at `timestamp` (ms since the epoch), and return it."""
        assert self.last_batch is not None or not self.size_bytes, "the newest batch is damaged"
        own = [timestamp if record.timestamp is None else record.timestamp for record in records]
        batch = build_batch(
            encode_records(records),
            count=len(records),
            base_offset=self.log_end_offset,
            timestamp=timestamp,
            max_timestamp=max(own, default=timestamp),
            chain=self.last_digest,
        )
        self.append([batch])
        return batch

    def roll(self) -> None:
        """Seal the active segment: the next batch begins another one.

        Nothing on disk says so: a log that is opened before that batch goes on in its last segment.
        """
        self._check()
        with self._writing():
            active = self._segments.active
            if active is not None and active.size:
                self._segments.seal_active()

    def trim(self, before: int) -> None:
        """Begin the log at `before`, at once; below the log start offset it changes nothing.

        Sealed segments that lie wholly below leave the log, now or as soon as they are sealed.
        Their files stay until `remove_trimmed`. Raises OffsetOutOfRange above the log end offset.
        """
        self._check()
        if before > self.log_end_offset:
            raise OffsetOutOfRange(before, self.log_start_offset, self.log_end_offset)
        with self._writing():
            self.log_start_offset = max(self.log_start_offset, before)
            self._drop_trimmed()

    def remove_trimmed(self) -> None:
        """Remove the files of segments that were trimmed away, or replaced by compaction.

        A checkpoint that still lists them could not be opened any more: first save what `sync`
        returns after the trim, then remove.
        """
        self._check()
        if not self._segments.has_unlisted:
            return
        with self._writing():
            self._segments.remove_unlisted()

    @property
    def first_offset(self) -> int:
        """The first offset in the files: above it by a trim is only what can be read."""
        extents = self._segments.extents()
        return extents[0][0] if extents else self.log_end_offset

    def read(
        self, offset: int, bytes_max: int, *, below_start: bool = False, end: int | None = None
    ) -> list[Batch]:
        """Return whole batches from the one that holds `offset`; none at the log end.

        One at least, further ones as long as all together stay within `bytes_max`; across segments,
        but none that begins at or behind `end`, if a segment does.
        Reads, and keeps in memory while the batches live, little more than it returns. Raises
        OffsetOutOfRange (`below_start`: only below `first_offset`), and DamagedBatch where a batch
        is not what was written.
        """
        self._check()
        start = self.first_offset if below_start else self.log_start_offset
        if not start <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(offset, start, self.log_end_offset)
        found: list[Batch] = []
        room = bytes_max
        end_offset = self.log_end_offset if end is None else min(end, self.log_end_offset)
        while offset < end_offset and (room > 0 or not found):
            segment = self._segments.holding(offset)
            batches = segment.read(offset, room, at_least_one=not found)
            found += batches
            if not batches or batches[-1].next_offset < segment.next_offset:
                break
            offset = segment.next_offset
            room -= sum(batch.size for batch in batches)
        return found

    def find_timestamp(self, timestamp: int, start: int | None = None) -> int:
        """Return an offset before which no record from `start` (by default all) on is at or after
        `timestamp` (ms): the base offset of the first batch with such a record, or the log end
        offset.

        Raises DamagedBatch, OffsetOutOfRange.
        """
        self._check()
        start = self.log_start_offset if start is None else start
        if not self.log_start_offset <= start <= self.log_end_offset:
            raise OffsetOutOfRange(start, self.log_start_offset, self.log_end_offset)
        found, active = (
            self._segments.sealed.find_timestamp(timestamp, start),
            self._segments.active,
        )
        if found is None and active is not None and active.size:
            found = active.find_timestamp(timestamp)
        return self.log_end_offset if found is None else max(found, start)

    def segment_end(self, offset: int) -> int:
        """Return where the segment that holds `offset` ends; raises OffsetOutOfRange."""
        return self._kept_segment_of(offset).next_offset

    def check(self, base_offset: int, position: int, length: int) -> None:
        """Check all batches that reach into a range of the segment `base_offset`.

        Raises DamagedBatch, OffsetOutOfRange if there is no such segment.
        """
        segment = self._kept_segment_of(base_offset)
        if segment.base_offset == base_offset:
            segment.check(position, length)

    def distrust(self, offset: int, reason: str) -> DamagedBatch:
        """Return that the batch at `offset`, which can be read, is not the right one.

        Raises DamagedBatch if there is damage before it, OffsetOutOfRange.
        """
        return self._kept_segment_of(offset).distrust(offset, reason)

    def mend(self, offset: int, data: bytes) -> tuple[Batch, int]:
        """Put another copy of damaged batches in their place; durable on return.

        `data` are batches from `offset` on, where DamagedBatch said; what is in there of the next
        segment, and half a batch, is ignored. What is the same already is not written. Returns the
        last batch and how many bytes were written.

        Raises BadCopy unless they are what is missing: whole, without a gap, chained to what is
        before and behind them; DamagedBatch if there is damage before them, or if the disk does not
        take them and the damage stays; OffsetOutOfRange; OSError if they cannot be made durable.
        """
        self._check()
        segment = self._kept_segment_of(offset)
        batches = [each for each in parse_all(data)[0] if each.base_offset < segment.next_offset]
        if not batches or batches[0].base_offset != offset:
            raise BadCopy(f"no batch of offset {offset}")
        known = self._segments.sealed.ending_at(segment.next_offset)
        seam = known.seam if known is not None else None
        digest = seam.digest if seam is not None else None
        written = segment.mend(batches, self.link_at(segment.base_offset), digest)
        with self._writing():
            segment.sync()
            segment.settle()
        if segment.next_offset == self.log_end_offset:
            self._end_at(segment)
        return batches[-1], written

    def _kept_segment_of(self, offset: int) -> Segment:
        self._check()
        if not self.first_offset <= offset < self.log_end_offset:
            raise OffsetOutOfRange(offset, self.first_offset, self.log_end_offset)
        return self._segments.holding(offset)

    def link_behind(self, batch: Batch) -> bytes | None:
        """Return what the batch behind `batch` has to carry as its chain; None if it is unknown.

        Raises DamagedBatch for a compacted segment's last batch that is not the right one.
        """
        known = self._segments.sealed.ending_at(batch.next_offset)
        if known is None or not known.generation:
            return batch.digest()
        if known.seam is None:
            return None
        if known.seam.digest != batch.digest():
            raise self.distrust(batch.base_offset, "not what compaction made of the batches here")
        return known.seam.bridge

    def is_seam(self, offset: int) -> bool:
        """Does a compacted segment end there?"""
        known = self._segments.sealed.ending_at(offset)
        return known is not None and known.generation > 0

    def segment_start(self, offset: int) -> int:
        """Return where the segment that holds `offset` begins; the log end offset if that is it."""
        if offset >= self.log_end_offset:
            return self.log_end_offset
        return self._kept_segment_of(offset).base_offset

    def sealed_segments(self) -> list[SealedSegment]:
        """Return the segments that can be compacted, oldest first: all but the newest."""
        return self._segments.compactable()

    def generation_at(self, offset: int) -> int:
        """Return the generation of the segment that holds `offset`; raises OffsetOutOfRange."""
        self._check()
        if not self.first_offset <= offset < self.log_end_offset:
            raise OffsetOutOfRange(offset, self.first_offset, self.log_end_offset)
        known = self._segments.sealed.holding(offset)
        return known.generation if known is not None else 0

    @property
    def segment_bytes_max(self) -> int:
        return self._segments.bytes_max

    def new_segment(self, name: SegmentName) -> SegmentWriter:
        """Begin a segment that is to take the place of others."""
        self._check()
        segments = self._segments
        return SegmentWriter(segments.files, segments.folder, name, segments.interval_bytes)

    def swap(self, new: SealedSegment) -> None:
        """Put a segment that `Compaction` made, durable under its new name, in the place of those
        it was made of, at once. Their files stay until `remove_trimmed`.
        """
        self._check()
        assert new.seam is not None, "no other segment takes the place of others"
        with self._writing():
            self._segments.swap(new)
            self.swaps += 1

    def link_at(self, offset: int) -> bytes | None:
        """Return what the first batch of the segment that begins at `offset` has to carry as its
        chain; None if it is unknown.
        """
        return self._segments.link_at(offset)

    def records(self, start: int | None = None) -> Iterator[StoredRecord]:
        """Yield the records from offset `start` (by default all) to where the log ends meanwhile.

        Reads in pieces, so that memory does not grow with the log; what is appended while somebody
        iterates is yielded, too. Raises what `read` raises, OffsetOutOfRange also for records that
        are trimmed before they are reached.
        """
        offset = self.log_start_offset if start is None else start
        while batches := self.read(offset, _PIECE_BYTES):
            for batch in batches:
                for record in batch.records():
                    if record.offset >= offset:
                        yield record
            offset = batches[-1].next_offset

    def sync(self) -> LogState:
        """Make all that was appended durable, files and their names, and return what that is."""
        self._check()
        with self._writing():
            self._segments.sync()
        seams = [each.seam for each in self._segments.sealed.known() if each.seam is not None]
        extents = tuple(self._segments.extents())
        return LogState(self.log_start_offset, self.log_end_offset, extents, tuple(seams))

    def compact(
        self,
        *,
        cleaned_until: int = 0,
        tombstones_below: int = 0,
        keys_max: int = KEYS_MAX,
    ) -> int:
        """Keep of all records in sealed segments that have one key only the newest, at its offset.

        Returns the offset up to which every key is there once: give it as `cleaned_until` to the
        next call, which then reads only what is new before it rewrites. One call tells at most
        `keys_max` keys apart, and stops where there are more. Records without a key stay. So do
        tombstones, for who has read the record before; those below `tombstones_below`, an offset
        that an earlier call returned, go.

        Each segment takes the place of others at once, and is durable then; a crash leaves the ones
        or the other. The old files go with `remove_trimmed`. Raises what `read` and `sync` raise.
        """
        self._check()
        tombstones_below = min(tombstones_below, cleaned_until)
        return compact_log(self, cleaned_until, tombstones_below, keys_max)

    def set_segment_bytes_max(self, segment_bytes_max: int) -> None:
        """Change when a segment is sealed, from the next append on; raises ValueError."""
        check_segment_bytes_max(segment_bytes_max)
        self._segments.bytes_max = segment_bytes_max

    def close(self) -> None:
        """Close all files, synced or not. Closing twice is allowed."""
        self._is_closed = True
        self._segments.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _drop_trimmed(self) -> None:
        if not self.keeps_trimmed:
            self._segments.drop_below(self.log_start_offset)

    def _end_at(self, segment: Segment) -> None:
        self.log_end_offset = segment.next_offset
        self.last_batch = segment.last
        self.last_digest = segment.last_digest

    def _check(self) -> None:
        assert not self._is_closed, "the log is closed"
        if self._failure is not None:
            raise Poisoned(self._segments.folder, self._failure)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Poison the log if the block fails: a write cut short anywhere leaves it unknown."""
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise
