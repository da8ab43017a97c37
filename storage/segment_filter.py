"""A Bloom filter of one sealed segment: which values its records certainly do not have.

    head   magic "CUTEBLM1" │ crc u32, of everything behind it │ base_offset u64 │ end_offset u64 │
           length u16, identity (what it is of)                             little-endian
    rest   the filter, as rbloom saves it

Derived: one that is missing, or is not what was written, is built again. A filter of a segment
stays right when records are removed from it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from crc32c import crc32c
from xxhash import xxh3_128_intdigest

if TYPE_CHECKING:
    from rbloom import Bloom

FALSE_POSITIVES: Final = 0.005
FILE_BYTES_MAX: Final = 64 << 20
_MAGIC: Final = b"CUTEBLM1"
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<QQH")
_BIAS: Final = 1 << 127


class SegmentFilter:
    """Values of the records in `[base_offset, end_offset)`, added one by one, then kept."""

    def __init__(self, base_offset: int, end_offset: int, bloom: Bloom | None = None) -> None:
        self.base_offset = base_offset
        self.end_offset = end_offset
        if bloom is None:
            from rbloom import Bloom

            bloom = Bloom(max(1, end_offset - base_offset), FALSE_POSITIVES, _hash)
        self._bloom = bloom

    @property
    def size_bytes(self) -> int:
        return self._bloom.size_in_bits // 8

    def add(self, values: Iterable[bytes]) -> None:
        self._bloom.update(values)

    def __contains__(self, value: bytes) -> bool:
        """False: no record has it. True: one may."""
        return value in self._bloom

    def save(self, path: str, identity: bytes) -> None:
        """Replace the file; a crash in between leaves the old one, or a bad one."""
        head = _HEAD.pack(self.base_offset, self.end_offset, len(identity))
        rest = head + identity + self._bloom.save_bytes()
        temporary = f"{path}.tmp"
        with open(temporary, "wb") as file:
            file.write(_MAGIC + _CRC.pack(crc32c(rest)) + rest)
        os.replace(temporary, path)


def load_filter(path: str, identity: bytes) -> SegmentFilter | None:
    """Return the filter in the file; None if it is missing, damaged or of something else."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError:
        return None
    start = len(_MAGIC) + _CRC.size
    rest = memoryview(data)[start:]
    if len(data) > FILE_BYTES_MAX or data[: len(_MAGIC)] != _MAGIC or len(rest) < _HEAD.size:
        return None
    if crc32c(rest) != _CRC.unpack_from(data, len(_MAGIC))[0]:
        return None
    base_offset, end_offset, length = _HEAD.unpack_from(rest)
    if rest[_HEAD.size : _HEAD.size + length] != identity:
        return None
    from rbloom import Bloom

    bloom = Bloom.load_bytes(bytes(rest[_HEAD.size + length :]), _hash)
    return SegmentFilter(base_offset, end_offset, bloom)


def _hash(value: bytes) -> int:
    """A hash that is the same in every process, in the range rbloom takes."""
    return xxh3_128_intdigest(value) - _BIAS
