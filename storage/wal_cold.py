"""Reading entries that are not in memory: for followers that lag, and for replay after a start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import Damaged
from .filesystem import File, FileSystem
from .wal_extents import Piece
from .wal_frame import Entry, FrameReader, Kind, Location, frame_size, read_seed
from .wal_locations import Locations
from .wal_segment import segment_path


@dataclass(frozen=True, slots=True)
class ColdRead:
    """A read planned by the Wal's loop, to be called on any thread, beside flushes and other reads.

    All it reads was durable when it was planned, and segment files only grow; so it returns the
    entries as they were then, even if they have been truncated or rewritten since.
    """

    files: FileSystem
    folder: str
    pieces: Sequence[Piece]
    bytes_max: int
    locations: Locations
    is_dropped: Callable[[int], bool]
    """Tells whether a segment file was removed on purpose."""

    def __call__(self) -> list[Entry]:
        """Return at least one entry; fewer only if `drop_before` has removed their file meanwhile.

        Raises Damaged, OSError.
        """
        entries: list[Entry] = []
        bytes_left = self.bytes_max
        for piece in self.pieces:
            path = segment_path(self.folder, piece.sequence)
            try:
                file = self.files.open(path)
            except FileNotFoundError:
                if self.is_dropped(piece.sequence):
                    break
                raise Damaged(path, 0, "the segment is missing") from None
            try:
                bytes_left = self._read(file, path, piece, entries, bytes_left)
            finally:
                file.close()
            if bytes_left <= 0:
                break
        return entries

    def _read(
        self, file: File, path: str, piece: Piece, entries: list[Entry], bytes_left: int
    ) -> int:
        """Add the entries of `piece` to `entries`; return what is left, ≤ 0 when it is enough."""
        expected, position = piece.nearest
        reader = FrameReader(file, read_seed(file), position=position)
        while expected < piece.end:
            found, locations = reader.next_entries(expected)
            if not found:
                found, locations = self._next(reader, path, expected)
            self.locations.add(piece.extent, locations)
            for entry in found[max(piece.start - expected, 0) : piece.end - expected]:
                bytes_left -= frame_size(len(entry.payload))
                if bytes_left < 0 and entries:
                    return bytes_left
                entries.append(entry)
            if bytes_left <= 0 and entries:
                return bytes_left
            expected += len(found)
        return bytes_left

    def _next(
        self, reader: FrameReader, path: str, expected: int
    ) -> tuple[list[Entry], list[Location]]:
        """Return one entry, the rare way: its frame does not lie in the reader's window."""
        while True:
            position = reader.position
            frame = reader.next()
            if frame is None:
                raise Damaged(path, position, f"no sound frame where entry {expected} should be")
            if frame.kind == Kind.ENTRY and frame.index == expected:
                entry = Entry(frame.payload, frame.index, frame.term)
                return [entry], [Location(expected, position)]
            if frame.kind != Kind.HARD_STATE:
                reason = f"kind {frame.kind}, index {frame.index} instead of entry {expected}"
                raise Damaged(path, position, reason)
