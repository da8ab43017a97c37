"""One file of the write-ahead log: a 20-digit sequence number and ".wal".

It begins with a header: a SEGMENT frame, whose payload is a msgpack array of the fields of
`SegmentHeader`. The header is durable before the file has its name: it is written to `….wal.new`,
which is fsynced and renamed. So a header that does not read back is damage, never a torn write.
"""

from __future__ import annotations

import secrets
from itertools import pairwise

import msgspec

from .errors import Damaged
from .filesystem import File, FileSystem
from .wal_frame import FrameEncoder, FrameReader, Kind, Number, read_seed

SEGMENT_VERSION = 1

_SUFFIX = ".wal"
_NEW_SUFFIX = ".wal.new"
_DIGITS = 20


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was true of the whole log when the segment was begun."""

    version: int
    sequence: Number
    previous_bytes: Number
    """Length of the file before this one: all of it was durable. 0 for the first."""
    base_index: Number
    """The log begins behind this index."""
    last_index: Number
    term: Number
    vote: str | None
    runs: tuple[tuple[Number, Number], ...]
    """(first index, term), the first one at or below `base_index`."""
    extents: tuple[tuple[Number, Number, Number, Number], ...]
    """(first index, sequence, position, end position)."""

    def is_sound(self) -> bool:
        """Do runs and extents cover the entries, in order, and in files before this one?"""
        firsts = [first for first, *_ in self.extents]
        return (
            _ascend([first for first, _ in self.runs])
            and bool(self.runs)
            and self.runs[0][0] <= self.base_index <= self.last_index
            and _ascend([*firsts, self.last_index + 1])
            and (firsts or [self.last_index + 1])[0] == self.base_index + 1
            and all(sequence < self.sequence for _, sequence, _, _ in self.extents)
            and all(position < end for *_, position, end in self.extents)
        )


def _ascend(numbers: list[int]) -> bool:
    return all(low < high for low, high in pairwise(numbers))


def first_header(after: int, after_term: int) -> SegmentHeader:
    """Return the header of a new log that begins behind entry `after`."""
    return SegmentHeader(
        version=SEGMENT_VERSION,
        sequence=1,
        previous_bytes=0,
        base_index=after,
        last_index=after,
        term=after_term,
        vote=None,
        runs=((after, after_term),),
        extents=(),
    )


def segment_path(folder: str, sequence: int) -> str:
    return f"{folder}/{sequence:0{_DIGITS}d}{_SUFFIX}"


def list_segments(files: FileSystem, folder: str) -> list[int]:
    """Return the sequence numbers of the segment files in `folder`, ascending."""
    stems = [n.removesuffix(_SUFFIX) for n in files.listdir(folder) if n.endswith(_SUFFIX)]
    return [
        int(stem) for stem in stems if len(stem) == _DIGITS and stem.isascii() and stem.isdigit()
    ]


def remove_unfinished(files: FileSystem, folder: str) -> None:
    """Remove what a crash left of a segment that had no name yet."""
    for name in files.listdir(folder):
        if name.endswith(_NEW_SUFFIX):
            files.remove(f"{folder}/{name}")


def read_header(file: File, path: str) -> tuple[SegmentHeader, int, int]:
    """Return the header of a segment file, the file's seed and the header's length.

    Raises Damaged.
    """
    seed = read_seed(file)
    reader = FrameReader(file, seed, position=0)
    frame = reader.next()
    if frame is None or frame.kind != Kind.SEGMENT:
        raise Damaged(path, 0, "the segment's header is not sound")
    try:
        header = msgspec.msgpack.decode(frame.payload, type=SegmentHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(path, 0, f"the segment's header is not understood: {error}") from None
    if header.version != SEGMENT_VERSION:
        raise Damaged(path, 0, f"segment version {header.version} is unknown")
    if not header.is_sound():
        raise Damaged(path, 0, "the segment's header contradicts itself")
    return header, seed, reader.position


class SegmentWriter:
    """The newest segment file, open for writing. Used by one thread at a time."""

    def __init__(
        self, files: FileSystem, folder: str, file: File, sequence: int, seed: int, position: int
    ) -> None:
        self.sequence = sequence
        self.position = position
        """Length of the file; all of it durable between two calls of `write`."""
        self.failure: BaseException | None = None
        """Why a write failed, if one did: nothing more may be written then."""
        self._files = files
        self._folder = folder
        self._file = file
        self._seed = seed

    @classmethod
    def create(cls, files: FileSystem, folder: str, header: SegmentHeader) -> SegmentWriter:
        """Create a segment file; on return it, its header and its name are durable."""
        path = segment_path(folder, header.sequence)
        new_path = path.removesuffix(_SUFFIX) + _NEW_SUFFIX
        seed = secrets.randbelow(2**32 - 1) + 1
        encoder = FrameEncoder(seed, position=0, vouched=0)
        payload = msgspec.msgpack.encode(header)
        encoder.add(Kind.SEGMENT, header.last_index, header.runs[-1][1], payload)
        file = files.open(new_path, create=True)
        try:
            file.write_at(0, encoder.buffers())
            file.sync()
            files.rename(new_path, path)
            files.sync_folder(folder)
        except BaseException:
            file.close()
            raise
        return cls(files, folder, file, header.sequence, seed, encoder.position)

    def roll(self, header: SegmentHeader) -> None:
        """Go on in a new file; the old one is durable already."""
        new = self.create(self._files, self._folder, header)
        self._file.close()
        self._file, self._seed = new._file, new._seed
        self.sequence, self.position = new.sequence, new.position

    def encoder(self) -> FrameEncoder:
        return FrameEncoder(self._seed, position=self.position, vouched=self.position)

    def write(self, encoder: FrameEncoder) -> None:
        """Append what was encoded and make it durable."""
        self._file.write_at(self.position, encoder.buffers())
        self._file.sync()
        self.position = encoder.position

    def close(self) -> None:
        self._file.close()
