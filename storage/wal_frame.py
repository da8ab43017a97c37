"""The frame: the one unit of which write-ahead log segments consist.

    position  size  field
    0         4     crc       CRC-32C of bytes 4 … 40 and of the payload
    4         4     size      length of the payload, without padding
    8         4     seed      the segment's random number, never 0
    12        1     kind      1 SEGMENT, 2 ENTRY, 3 TRUNCATE, 4 HARD_STATE, 5 RESET
    13        3               zeros
    16        8     index     ENTRY: its own; TRUNCATE: the first one dropped;
                              RESET, SEGMENT: that of the log's last entry
    24        8     term      ENTRY, RESET, SEGMENT: the term at that index;
                              HARD_STATE: the current term
    32        8     vouched   length of this file known durable when the frame was written
    40        size  payload   ENTRY: the command; SEGMENT: the header;
                              HARD_STATE: the vote in UTF-8, empty if there is none
                    padding   zeros up to a multiple of 8; nothing covers them, nothing reads them

All numbers are little-endian. The seed tells a frame of this file from bytes that only look like
one: a payload that is a copy of a log, or remains of another file. No client knows it, so none can
write a frame into a record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, NamedTuple, TypeAlias

from crc32c import crc32c
from msgspec import Meta

from .filesystem import File

FRAME_HEADER_SIZE = 40
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
"""More than a frame may carry is taken for garbage before memory is given to it."""

NUMBER_MAX = 2**63 - 1
Number: TypeAlias = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
"""An index, a term, a position: it fits its field in a file, and what the kernel takes."""

LOCATION_BYTES = 32 * 1024
"""Positions of entries are remembered at least this far apart."""

_WINDOW_BYTES = 256 * 1024
_COPY_BYTES_MAX = 4096

_HEADER = struct.Struct("<IIIB3xQQQ")
_CRC = struct.Struct("<I")
_UNSUMMED = struct.Struct("<IIB3xQQQ")
_SEED = struct.Struct("<I")
_SEED_POSITION = 8
_PADDING = tuple(bytes(-size % 8) for size in range(8))


class Kind(IntEnum):
    SEGMENT = 1
    ENTRY = 2
    TRUNCATE = 3
    HARD_STATE = 4
    RESET = 5


_KINDS = frozenset(Kind)


class Entry(NamedTuple):
    """One entry of the Raft log, its fields in the order pysyncobj wants."""

    payload: bytes
    index: Number  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    term: Number


@dataclass(slots=True)
class Frame:
    kind: int
    index: int
    term: int
    vouched: int
    payload: bytes


class Location(NamedTuple):
    """Where in a file the frame of the entry with index `entry` begins."""

    entry: int
    position: int


def frame_size(payload_bytes: int) -> int:
    """Return the length in the file of a frame with that much payload."""
    return (payload_bytes + FRAME_HEADER_SIZE + 7) & ~7


class FrameEncoder:
    """Collects the frames of one write to the file whose seed is `seed`, `position` bytes in."""

    def __init__(self, seed: int, *, position: int, vouched: int) -> None:
        self.position = position
        self._seed = seed
        self._vouched = vouched
        self._start = position
        self._parts: list[bytes] = []

    def add(self, kind: Kind, index: int, term: int, payload: bytes = b"") -> None:
        size = len(payload)
        unsummed = _UNSUMMED.pack(size, self._seed, kind, index, term, self._vouched)
        crc = _CRC.pack(crc32c(payload, crc32c(unsummed)))
        self._parts += (crc, unsummed, payload, _PADDING[size & 7])
        self.position += frame_size(size)

    def add_entries(self, entries: Sequence[Entry]) -> list[Location]:
        """Add ENTRY frames; return where the first one begins and then one per LOCATION_BYTES.

        Does what `add` does, without a call per entry.
        """
        seed, vouched, position = self._seed, self._vouched, self.position
        append = self._parts.append
        pack, pack_crc, kind = _UNSUMMED.pack, _CRC.pack, int(Kind.ENTRY)
        locations: list[Location] = []
        next_location = position
        for payload, index, term in entries:
            if position >= next_location:
                locations.append(Location(index, position))
                next_location = position + LOCATION_BYTES
            size = len(payload)
            unsummed = pack(size, seed, kind, index, term, vouched)
            append(pack_crc(crc32c(payload, crc32c(unsummed))))
            append(unsummed)
            append(payload)
            if size & 7:
                append(_PADDING[size & 7])
            position += (size + FRAME_HEADER_SIZE + 7) & ~7
        self.position = position
        return locations

    def buffers(self) -> list[bytes]:
        """Return the frames, joined into one buffer where copying is cheaper than a long vector."""
        size = self.position - self._start
        if size <= _COPY_BYTES_MAX * max(1, len(self._parts)):
            return [b"".join(self._parts)]
        return self._parts


def read_seed(file: File) -> int:
    """Return the seed of a segment file from its first frame; 0 if the file is too short."""
    head = file.read_at(_SEED_POSITION, _SEED.size)
    return int(_SEED.unpack(head)[0]) if len(head) == _SEED.size else 0


class FrameReader:
    """Reads the frames of one file one behind the other, a window of the file in memory."""

    def __init__(
        self, file: File, seed: int, *, position: int, window_bytes: int = _WINDOW_BYTES
    ) -> None:
        self.position = position
        self.vouched = position
        """So much of the file was durable, by the word of the newest frame read."""
        self._file = file
        self._seed = seed
        self._window_bytes = window_bytes
        self._window = b""
        self._window_position = position

    def next(self) -> Frame | None:
        """Return the frame at `position` and move behind it; None if there is no sound one."""
        start = self._place(FRAME_HEADER_SIZE)
        if start is None:
            return None
        crc, size, seed, kind, index, term, vouched = _HEADER.unpack_from(self._window, start)
        if seed != self._seed or not seed or size > PAYLOAD_BYTES_MAX or kind not in _KINDS:
            return None
        length = frame_size(size)
        start = self._place(length)
        if start is None:
            return None
        end = start + FRAME_HEADER_SIZE + size
        if crc32c(memoryview(self._window)[start + _CRC.size : end]) != crc:
            return None
        self.position += length
        self.vouched = vouched
        return Frame(kind, index, term, vouched, self._window[start + FRAME_HEADER_SIZE : end])

    def next_entries(self, index: int) -> tuple[list[Entry], list[Location]]:
        """Return the entries `index`, `index + 1` … of one term that begin at `position`.

        With them come some of their locations, as from `FrameEncoder.add_entries`. Moves behind
        them; stops at the window's end or at any other frame, then it is for `next` to judge that.
        """
        entries: list[Entry] = []
        locations: list[Location] = []
        start = self._place(FRAME_HEADER_SIZE)
        if start is None:
            return entries, locations
        window, seed_here, entry_kind = self._window, self._seed, int(Kind.ENTRY)
        view, unpack = memoryview(window), _HEADER.unpack_from
        next_location, run_term = start, None
        while start + FRAME_HEADER_SIZE <= len(window):
            crc, size, seed, kind, found, term, vouched = unpack(window, start)
            end = start + FRAME_HEADER_SIZE + size
            behind = start + ((size + FRAME_HEADER_SIZE + 7) & ~7)
            if kind != entry_kind or found != index or seed != seed_here or behind > len(window):
                break
            if term != run_term and run_term is not None:
                break
            if crc32c(view[start + 4 : end]) != crc:
                break
            if start >= next_location:
                locations.append(Location(index, self._window_position + start))
                next_location = start + LOCATION_BYTES
            entries.append(Entry(window[start + FRAME_HEADER_SIZE : end], index, term))
            run_term = term
            self.vouched = vouched
            index += 1
            start = behind
        self.position = self._window_position + start
        return entries, locations

    def _place(self, length: int) -> int | None:
        """Return where `position` is in the window, `length` bytes behind it; None at the end."""
        start = self.position - self._window_position
        if start + length <= len(self._window):
            return start
        if length > self._window_bytes and length > self._file.size() - self.position:
            return None
        self._window = self._file.read_at(self.position, max(length, self._window_bytes))
        self._window_position = self.position
        return 0 if length <= len(self._window) else None


def find_voucher(file: File, seed: int, position: int, size: int) -> int | None:
    """Return the position of a frame behind `position` that calls the byte at `position` durable.

    Such a frame makes a bad one at `position` rot; without it, a write was torn there.
    """
    wanted = _SEED.pack(seed)
    window_position = position
    while window_position < size:
        window = file.read_at(window_position, _WINDOW_BYTES + _SEED.size)
        hit = window.find(wanted)
        while hit >= 0:
            candidate = window_position + hit - _SEED_POSITION
            if candidate > position and candidate % 8 == 0:
                frame = FrameReader(file, seed, position=candidate, window_bytes=0).next()
                if frame is not None and position < frame.vouched <= candidate:
                    return candidate
            hit = window.find(wanted, hit + 1)
        window_position += _WINDOW_BYTES
    return None


def encode_vote(vote: str | None) -> bytes:
    return b"" if vote is None else vote.encode()


def decode_vote(payload: bytes) -> str | None:
    return payload.decode("utf-8", "replace") or None
