"""The records of one body, found but not decoded: who wants few of many pays for few.

To find where a record of a body begins costs a third of what decoding it does, and no object that
stays. That each row is a record is checked when it is decoded, not before.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from .errors import CorruptBatch
from .filesystem import Buffer
from .record import Row, SparseRow

_finder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_row_decoder = msgspec.msgpack.Decoder(Row)
_sparse_row_decoder = msgspec.msgpack.Decoder(SparseRow)


class PackedRows:
    """The rows of a batch whose offsets cover `span`, each by its number from 0 on."""

    def __init__(self, body: Buffer, *, count: int, span: int) -> None:
        """Raises CorruptBatch if `body` is not one array of `count`."""
        try:
            self._rows = _finder.decode(body)
        except msgspec.MsgspecError as error:
            raise CorruptBatch(None, 0, f"records: {error}") from error
        if len(self._rows) != count:
            reason = f"{len(self._rows)} records where the header says {count}"
            raise CorruptBatch(None, 0, reason)
        self._span = span
        self._is_dense = count == span

    def __len__(self) -> int:
        return len(self._rows)

    def number_of(self, delta: int) -> int:
        """Return the number of the first row at or behind the offset `delta`, counted from the
        batch's; their count if there is none. Raises CorruptBatch.
        """
        if self._is_dense:
            return min(max(0, delta), len(self._rows))
        return bisect_left(range(len(self._rows)), delta, key=lambda number: self.row(number)[0])

    def row(self, number: int) -> tuple[int, Row]:
        """Return the offset of a row, less that of the batch, and the row. Raises CorruptBatch."""
        packed = self._rows[number]
        try:
            if self._is_dense:
                return number, _row_decoder.decode(packed)
            row = _sparse_row_decoder.decode(packed)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptBatch(None, 0, f"records: {error}") from error
        if not number <= row[4] < self._span:
            raise CorruptBatch(None, 0, f"records: offset {row[4]} of {self._span}")
        return row[4], row[:4]
