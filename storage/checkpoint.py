"""A checkpoint: one file, replaced as a whole, that says what is durable elsewhere and up to where.

    magic     8 bytes  "CUTECKP1"
    sections  each: length u64 | crc u32 | bytes
    trailer   2**64 - 1 u64 | crc u32 | number of sections u32

All numbers are little-endian. A crc is the CRC-32C of the length and of the bytes behind the crc,
begun with the crc before it: a section missing, there twice or in another's place is noticed too.

It is written under another name, fsynced and renamed: a crash leaves the old one or the new one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from crc32c import crc32c

from .errors import Damaged
from .filesystem import File, FileSystem

_NAME = "checkpoint"
_TEMPORARY_NAME = "checkpoint.tmp"
_MAGIC = b"CUTECKP1"
_SECTION = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_TRAILER_LENGTH = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """How far a checkpoint was read."""

    position: int = 0
    crc: int = 0
    count: int = 0
    """Of sections."""


def save(files: FileSystem, folder: str, sections: Iterable[bytes]) -> None:
    """Replace the checkpoint in `folder` by one of `sections`, durable on return.

    What it vouches for must be durable already. Each section is written before the next is asked
    for. Raises OSError; the old checkpoint or the new one is the valid one then.
    """
    _remove_leftover(files, folder)
    file = files.open(f"{folder}/{_TEMPORARY_NAME}", create=True)
    try:
        _write(file, sections)
        file.sync()
    finally:
        file.close()
    files.rename(f"{folder}/{_TEMPORARY_NAME}", path_in(folder))
    files.sync_folder(folder)


def load(files: FileSystem, folder: str) -> list[bytes] | None:
    """Return the sections of the checkpoint in `folder`, None if there is none.

    Raises Damaged, OSError.
    """
    _remove_leftover(files, folder)
    path = path_in(folder)
    return read(files, path) if files.exists(path) else None


def path_in(folder: str) -> str:
    return f"{folder}/{_NAME}"


def read(files: FileSystem, path: str) -> list[bytes]:
    """Return the sections of the checkpoint in the file `path`. Raises Damaged, OSError."""
    return [section for _, section in read_placed(files, path)]


def read_placed(files: FileSystem, path: str) -> list[tuple[int, bytes]]:
    """Return what `read` does, each section with its position in the file."""
    file = files.open(path)
    try:
        return _read(file, path)
    finally:
        file.close()


def check_next(files: FileSystem, path: str, at: Place) -> Place | None:
    """Check the section at `at`; return the place behind it, None if it was the last one.

    Raises Damaged, OSError.
    """
    file = files.open(path)
    try:
        found = _next_section(file, path, file.size(), at)
    finally:
        file.close()
    return found[1] if found is not None else None


def _remove_leftover(files: FileSystem, folder: str) -> None:
    path = f"{folder}/{_TEMPORARY_NAME}"
    if files.exists(path):
        files.remove(path)


def _write(file: File, sections: Iterable[bytes]) -> None:
    file.write_at(0, [_MAGIC])
    position = len(_MAGIC)
    crc = count = 0
    for section in sections:
        crc = _next_crc(crc, _LENGTH.pack(len(section)), section)
        file.write_at(position, [_SECTION.pack(len(section), crc), section])
        position += _SECTION.size + len(section)
        count += 1
    number = _COUNT.pack(count)
    crc = _next_crc(crc, _LENGTH.pack(_TRAILER_LENGTH), number)
    file.write_at(position, [_SECTION.pack(_TRAILER_LENGTH, crc), number])


def _read(file: File, path: str) -> list[tuple[int, bytes]]:
    size = file.size()
    sections: list[tuple[int, bytes]] = []
    at = Place()
    while (found := _next_section(file, path, size, at)) is not None:
        body, behind = found
        sections.append((at.position or len(_MAGIC), body))
        at = behind
    return sections


def _next_section(file: File, path: str, size: int, at: Place) -> tuple[bytes, Place] | None:
    """Return the section at `at` and the place behind it; None if the trailer is there."""
    position = at.position or len(_MAGIC)
    if not at.position and file.read_at(0, len(_MAGIC)) != _MAGIC:
        raise Damaged(path, 0, "this is no checkpoint")
    head = file.read_at(position, _SECTION.size)
    if len(head) < _SECTION.size:
        raise Damaged(path, position, "the checkpoint ends too early")
    length, expected = _SECTION.unpack(head)
    is_trailer = length == _TRAILER_LENGTH
    body_size = _COUNT.size if is_trailer else length
    if body_size > size - position - _SECTION.size:
        raise Damaged(path, position, "a section is longer than the file")
    body = file.read_at(position + _SECTION.size, body_size)
    crc = _next_crc(at.crc, head[: _LENGTH.size], body)
    if crc != expected:
        raise Damaged(path, position, "the section's checksum does not match")
    behind = Place(position + _SECTION.size + body_size, crc, at.count + 1)
    if not is_trailer:
        return body, behind
    if (at.count,) != _COUNT.unpack(body) or behind.position != size:
        raise Damaged(path, position, "the trailer does not match the file")
    return None


def _next_crc(crc: int, length: bytes, body: bytes) -> int:
    return int(crc32c(body, crc32c(length, crc)))
