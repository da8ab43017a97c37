"""The file `node` of a data folder: whose data it is, and in which state.

    {"format": 1, "id": …, "incarnation": …, …}    one line of JSON
    1a2b3c4d                                        its CRC-32C, in hexadecimal

Small enough to be read by people, and checked all the same: an incarnation with a changed digit
would be another voter.
"""

from __future__ import annotations

import msgspec
from crc32c import crc32c

FORMAT = 1
MARK_BYTES_MAX = 4096


class NodeMark(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    incarnation: str
    """Random; tells this folder's data from what the node had before."""
    cluster_id: str | None = None
    """The cluster this node belongs to, once that is known."""
    is_moving: bool = False
    """Damaged data is being set aside."""
    is_repairing: bool = False
    """Damaged data was set aside; what is here is not complete yet."""
    is_incomplete: bool = False
    """The data that `is_moving` is about was itself fetched only in part: it is removed."""
    format: int = FORMAT


def encode_mark(mark: NodeMark) -> bytes:
    line = msgspec.json.encode(mark)
    return b"%s\n%08x\n" % (line, crc32c(line))


def decode_mark(data: bytes) -> NodeMark:
    """Raises ValueError."""
    line, _, rest = data.partition(b"\n")
    if rest != b"%08x\n" % crc32c(line):
        raise ValueError("its checksum does not match")
    return msgspec.json.decode(line, type=NodeMark)
