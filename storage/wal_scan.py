"""The write-ahead log of a stopped node, frame by frame, as it lies there.

Recovery reads what it needs and cuts a torn end; this reads every segment file and changes nothing.
What counts as torn and what as damage is the same: a frame that is not sound is damage if the file
is not the newest one, or if a later frame says that it was durable.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from .errors import Damaged
from .filesystem import File, FileSystem
from .findings import Finding
from .wal_frame import Frame, FrameReader, Kind, Location, decode_vote, find_voucher
from .wal_image import HardState, Image, Reset, Truncate
from .wal_locations import Locations
from .wal_segment import SegmentHeader, list_segments, read_header, segment_path


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    path: str
    position: int
    size: int
    """Bytes in the file, padding included."""
    frame: Frame


@dataclass(frozen=True, slots=True)
class _Segment:
    sequence: int
    path: str
    header: SegmentHeader | None
    seed: int
    header_end: int


class WalScan:
    """One pass over the segment files, oldest first.

    `image` is what the files passed so far say of the log: None before the first readable one. A
    segment that is damaged is left at the damage, and the next one begins a new image.
    """

    def __init__(self, files: FileSystem, folder: str) -> None:
        self.image: Image | None = None
        self._oldest = 0
        self._files = files
        self._folder = folder

    def run(self) -> Iterator[PlacedFrame | Finding]:
        segments: list[_Segment] = []
        for sequence in list_segments(self._files, self._folder):
            try:
                segments.append(self._open(sequence))
            except Damaged as error:
                yield Finding.of(error, error.path)
                segments.append(_Segment(sequence, error.path, None, 0, 0))
        for number, segment in enumerate(segments):
            behind = segments[number + 1] if number + 1 < len(segments) else None
            if segment.header is None:
                self.image = None
                continue
            if number and segment.sequence != segments[number - 1].sequence + 1:
                self.image = None
                reason = "files before this one are missing, as after a stop that interrupted"
                reason += " their removal: the next start removes the rest"
                yield Finding(segment.path, 0, reason, is_damage=False)
            yield from self._enter(segment, segment.header)
            yield from self._scan(segment, behind)
        if self.image is not None:
            self.image.forget_before(self._oldest)

    def _open(self, sequence: int) -> _Segment:
        path = segment_path(self._folder, sequence)
        file = self._files.open(path)
        try:
            header, seed, header_end = read_header(file, path)
        finally:
            file.close()
        if header.sequence != sequence:
            raise Damaged(path, 0, f"this is segment {header.sequence} by its header")
        return _Segment(sequence, path, header, seed, header_end)

    def _enter(self, segment: _Segment, header: SegmentHeader) -> Iterator[Finding]:
        if self.image is None:
            self.image = Image(header, Locations())
            self._oldest = segment.sequence
        elif self.image.last_index != header.last_index:
            reason = "the header contradicts the segment before it"
            yield Finding(segment.path, 0, reason, index=self.image.last_index + 1)
            self.image = Image(header, Locations())
        self.image.begin_segment(segment.sequence, segment.header_end)

    def _scan(self, segment: _Segment, behind: _Segment | None) -> Iterator[PlacedFrame | Finding]:
        file = self._files.open(segment.path)
        try:
            end = file.size()
            follows = behind is not None and behind.sequence == segment.sequence + 1
            if follows and behind is not None and behind.header is not None:
                end = behind.header.previous_bytes
            position = yield from self._frames(file, segment, end)
            if position == end:
                return
            yield self._judge(file, segment, position, is_newest=behind is None)
            if behind is not None:
                self.image = None
        finally:
            file.close()

    def _frames(self, file: File, segment: _Segment, end: int) -> Generator[PlacedFrame, None, int]:
        """Return where the frames that follow each other end."""
        reader = FrameReader(file, segment.seed, position=0)
        position = 0
        while position < end:
            frame = reader.next()
            if frame is None or reader.position > end:
                break
            if position and not self._take(frame, position, reader.position):
                break
            yield PlacedFrame(segment.path, position, reader.position - position, frame)
            position = reader.position
        return position

    def _take(self, frame: Frame, position: int, end_position: int) -> bool:
        """Bring the image up to date; False if the frame cannot stand where it does."""
        image = self.image
        assert image is not None
        index, term = frame.index, frame.term
        if frame.kind == Kind.ENTRY:
            if index != image.last_index + 1:
                return False
            image.append(index + 1, term, end_position, (Location(index, position),))
        elif frame.kind == Kind.TRUNCATE:
            if not image.base_index < index <= image.last_index:
                return False
            image.change(Truncate(index), end_position)
        elif frame.kind == Kind.RESET:
            image.change(Reset(index, term), end_position)
        elif frame.kind == Kind.HARD_STATE:
            image.change(HardState(term, decode_vote(frame.payload)), end_position)
        else:
            return False
        return True

    def _judge(self, file: File, segment: _Segment, position: int, *, is_newest: bool) -> Finding:
        assert self.image is not None
        due = self.image.last_index + 1
        size = file.size()
        if not is_newest:
            reason = "a bad frame in a file that was complete before the next one was begun"
            return Finding(segment.path, position, reason, index=due)
        if FrameReader(file, segment.seed, position=position).next() is not None:
            reason = "a sound frame that cannot follow the one before it"
            return Finding(segment.path, position, reason, index=due)
        voucher = find_voucher(file, segment.seed, position, size)
        if voucher is not None:
            reason = f"a bad frame, called durable by the one at byte {voucher}"
            return Finding(segment.path, position, reason, index=due)
        reason = f"torn end: the next start cuts {size - position} bytes that nobody was promised"
        return Finding(segment.path, position, reason, is_damage=False, index=due)
