"""Reading the write-ahead log at start: what is there, what is torn, what is rotten.

- The newest segment may end in a torn write: what a crash left of the last flush. That is cut off.
- A bad frame that a later frame calls durable is rot, as is anything wrong in an older segment,
  for the header behind vouches for its whole length. Rot is `Damaged`, and nothing is cut.
- Zeros behind the last frame are an end like any other.
- Reading begins in the newest segment before which the log ended at or below the entry that a
  checkpoint covers; older files are not touched before somebody reads their entries.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise

from .entry_cache import EntryCache
from .errors import Damaged
from .filesystem import File, FileSystem, write_again
from .wal_frame import Entry, Frame, FrameReader, Kind, Location, decode_vote, find_voucher
from .wal_image import HardState, Image, Reset, Truncate
from .wal_locations import Locations
from .wal_segment import (
    SegmentHeader,
    SegmentWriter,
    list_segments,
    read_header,
    remove_unfinished,
    segment_path,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Segment:
    header: SegmentHeader
    seed: int
    header_end: int
    path: str


class Recovery:
    """One reading of a folder of segments, oldest frame first."""

    def __init__(
        self,
        files: FileSystem,
        folder: str,
        locations: Locations,
        cache: EntryCache,
        cache_bytes_max: int,
    ) -> None:
        self._files = files
        self._folder = folder
        self._locations = locations
        self._cache = cache
        self._cache_bytes_max = cache_bytes_max

    def run(self, after: int) -> tuple[Image, SegmentWriter] | None:
        """Return what the files say and the newest one, open for writing; None if there is no file.

        Fills the cache with the newest entries. On return all that was found is durable.
        """
        remove_unfinished(self._files, self._folder)
        leftovers, sequences = _split_at_gap(list_segments(self._files, self._folder))
        if not sequences:
            return None
        segments = self._segments_to_read(sequences, after)
        image = Image(segments[0].header, self._locations)
        self._cache.reset(image.last_index + 1)
        for segment, behind in pairwise(segments):
            self._read_sealed(segment, behind, image)
        writer = self._read_newest(segments[-1], image)
        image.forget_before(sequences[0])
        if image.base_index <= after:
            # What an interrupted `drop_before` left; else it may be all there is to repair with.
            for sequence in leftovers:
                self._files.remove(segment_path(self._folder, sequence))
        self._cache.evict(self._cache_bytes_max, self._cache.end)
        return image, writer

    def _segments_to_read(self, sequences: list[int], after: int) -> list[_Segment]:
        segments: list[_Segment] = []
        for sequence in reversed(sequences):
            path = segment_path(self._folder, sequence)
            file = self._files.open(path)
            try:
                header, seed, header_end = read_header(file, path)
            finally:
                file.close()
            if header.sequence != sequence:
                raise Damaged(path, 0, f"this is segment {header.sequence} by its header")
            segments.append(_Segment(header, seed, header_end, path))
            if header.last_index <= after:
                break
        return segments[::-1]

    def _read_sealed(self, segment: _Segment, behind: _Segment, image: Image) -> None:
        file = self._files.open(segment.path)
        try:
            self._replay(file, segment, image, end=behind.header.previous_bytes)
        finally:
            file.close()
        if image.position != behind.header.previous_bytes:
            raise Damaged(segment.path, image.position, "the sealed segment ends too early")
        if image.next_header().last_index != behind.header.last_index:
            raise Damaged(behind.path, 0, "the header contradicts the segment before it")

    def _read_newest(self, segment: _Segment, image: Image) -> SegmentWriter:
        file = self._files.open(segment.path)
        try:
            size = file.size()
            vouched = self._replay(file, segment, image, end=size)
            position = image.position
            if position < size:
                voucher = find_voucher(file, segment.seed, position, size)
                if voucher is not None:
                    reason = f"a bad frame, called durable by the one at byte {voucher}"
                    raise Damaged(segment.path, position, reason)
                file.truncate(position)
                facts = {"path": segment.path, "position": position, "cut_bytes": size - position}
                _logger.info("cut the torn end of the write-ahead log", extra=facts)
            write_again(file, vouched, position)
            file.sync()
            self._files.sync_folder(self._folder)
        except BaseException:
            file.close()
            raise
        sequence = segment.header.sequence
        return SegmentWriter(self._files, self._folder, file, sequence, segment.seed, position)

    def _replay(self, file: File, segment: _Segment, image: Image, end: int) -> int:
        """Take in the frames up to `end`; return how much of the file the newest calls durable."""
        image.begin_segment(segment.header.sequence, segment.header_end)
        reader = FrameReader(file, segment.seed, position=segment.header_end)
        while reader.position < end:
            entries, locations = reader.next_entries(image.last_index + 1)
            if entries:
                image.append(entries[-1].index + 1, entries[-1].term, reader.position, locations)
                self._remember(entries)
                continue
            frame = reader.next()
            if frame is None:
                break
            if not _follows(frame, image):
                reason = f"kind {frame.kind}, index {frame.index} behind entry {image.last_index}"
                raise Damaged(segment.path, image.position, reason)
            self._apply(frame, image, reader.position)
        return reader.vouched

    def _apply(self, frame: Frame, image: Image, end_position: int) -> None:
        index, term, cache = frame.index, frame.term, self._cache
        if frame.kind == Kind.ENTRY:
            image.append(index + 1, term, end_position, (Location(index, image.position),))
            self._remember([Entry(frame.payload, index, term)])
        elif frame.kind == Kind.TRUNCATE:
            image.change(Truncate(index), end_position)
            cache.truncate(index)
        elif frame.kind == Kind.RESET:
            image.change(Reset(index, term), end_position)
            cache.reset(index + 1)
        else:
            image.change(HardState(term, decode_vote(frame.payload)), end_position)

    def _remember(self, entries: list[Entry]) -> None:
        self._cache.extend(entries)
        if self._cache.size_bytes > 2 * self._cache_bytes_max:
            self._cache.evict(self._cache_bytes_max, self._cache.end)


def _split_at_gap(sequences: list[int]) -> tuple[list[int], list[int]]:
    """Return the numbers below the last gap and those above it."""
    start = len(sequences) - 1
    while start > 0 and sequences[start - 1] == sequences[start] - 1:
        start -= 1
    start = max(start, 0)
    return sequences[:start], sequences[start:]


def _follows(frame: Frame, image: Image) -> bool:
    if frame.kind == Kind.ENTRY:
        return frame.index == image.last_index + 1
    if frame.kind == Kind.TRUNCATE:
        return image.base_index < frame.index <= image.last_index
    return frame.kind in (Kind.RESET, Kind.HARD_STATE)
