"""Where a search goes on: opaque to clients, good on every node.

It names the index by its id, so that one of another definition is refused, carries a digest of the
search, and the Raft index that its page showed: who goes on sees no less.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Final, TypeAlias

import msgspec

from ..storage.value_index import Hit
from ..storage.wal_frame import Number
from .errors import BadSearch

CHARS_MAX: Final = 2_048
_VERSION: Final = 1
_TEXT: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{CHARS_MAX}}}", re.ASCII)
_Value: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=511)]


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    version: int
    stream_id: Number
    index_id: Number
    digest: bytes
    applied_index: Number
    offset: Number
    """By offset: where to go on; by value: of the last record looked at."""
    value: _Value | None
    """Of the last record looked at, as an index has it; None in searches by offset."""

    @property
    def hit(self) -> Hit | None:
        return None if self.value is None else Hit(self.value, self.offset)


def pack_cursor(
    stream_id: int, index_id: int, digest: bytes, applied_index: int, position: int | Hit
) -> str:
    offset, value = position, None
    if isinstance(position, Hit):
        offset, value = position.offset, position.value
    assert isinstance(offset, int)
    cursor = Cursor(_VERSION, stream_id, index_id, digest, applied_index, offset, value)
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).rstrip(b"=").decode()


def unpack_cursor(text: str) -> Cursor:
    """Raises BadSearch for anything that `pack_cursor` did not make."""
    try:
        if not _TEXT.fullmatch(text):
            raise ValueError("other characters, or too long")
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.msgpack.decode(packed, type=Cursor)
    except (msgspec.MsgspecError, ValueError, binascii.Error):
        raise BadSearch("cursor: this is none of ours", field="cursor") from None
    if cursor.version != _VERSION:
        raise BadSearch("cursor: another version's", field="cursor")
    return cursor
