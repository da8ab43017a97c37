"""What compaction makes of batches: others that hold fewer records, at the offsets they had.

A *mask* says what stays: a byte per record in the order of the log, 1 for a record that is kept.
Equal batches and an equal mask give equal bytes, whoever does it:

- Every offset of the input is covered by one batch of the output.
- What a reader sees of a record that is kept does not change: its timestamp becomes the record's
  own where its batch has another one now.
- A batch of PASSED_BYTES_MIN or more from which nothing goes, or one that is compressed, stays as
  it is, but for its chain and checksum. Of the others such of about MERGED_BYTES are made.
- What is made anew is compressed as the last batch it comes from. A library of another version may
  make other bytes of it; whoever has to have the same as somebody else compares, and takes theirs.
- A hole goes to the batch of the next record; where there is none, to a batch without records.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .batch import Batch, build_batch, rechained
from .codec import CODEC_NONE, pack
from .filesystem import Buffer
from .record import Row, SparseRow, encode_rows, encode_sparse_rows

MERGED_BYTES = 64 * 1024
PASSED_BYTES_MIN = 16 * 1024
MASK_RECORDS_MAX = 4_000_000
"""Records of one run; a mask of so many takes less than 700 KB when packed."""

_ROW_BYTES = 16
"""More than a record takes beside its key, value and headers."""


class Rewriter:
    """Takes batches in order, and returns those to be written in their place."""

    def __init__(self, base_offset: int, chain: bytes) -> None:
        self.count = 0
        """Records kept."""
        self.chain = chain
        """Digest of the batch returned last: what the next one carries."""
        self._base_offset = self._end_offset = base_offset
        """Covered by no batch yet, of what was taken."""
        self._rows: list[tuple[int, int, Row]] = []
        """Offset, timestamp of its batch, record."""
        self._size = 0
        self._last: Batch | None = None
        """The newest that something of the range came from."""
        self._timestamp = 0

    def add(self, batch: Batch, mask: Buffer) -> Iterator[Batch]:
        """Take the next batch; `mask` has a byte for each of its records."""
        assert batch.base_offset == self._end_offset
        assert len(mask) == batch.count
        is_whole = batch.count > 0 and 0 not in mask
        if is_whole and (batch.size >= PASSED_BYTES_MIN or batch.codec != CODEC_NONE):
            yield from self._close(batch.base_offset)
            self.count += batch.count
            yield self._out(rechained(batch, self.chain))
            self._base_offset = self._end_offset = batch.next_offset
            return
        if 1 in mask:
            offsets, rows = batch.rows()
            for offset, row, is_kept in zip(offsets, rows, mask, strict=True):
                if is_kept:
                    yield from self._take(offset, row, batch)
        self._note(batch)
        self._end_offset = batch.next_offset

    def finish(self) -> Iterator[Batch]:
        """Return what is left to write."""
        yield from self._close(self._end_offset)

    def _take(self, offset: int, row: Row, batch: Batch) -> Iterator[Batch]:
        size = _size(row)
        is_large = size >= MERGED_BYTES
        if is_large or (self._rows and self._size + size > MERGED_BYTES):
            if offset > batch.base_offset:
                self._note(batch)
            # A large one comes alone, and so without a word more than it had.
            yield from self._close(offset)
        self._note(batch)
        self._rows.append((offset, batch.timestamp, row))
        self._size += size
        self.count += 1
        if is_large:
            yield from self._close(offset + 1)

    def _note(self, batch: Batch) -> None:
        if self._last is None:
            self._timestamp = batch.timestamp
        self._last = batch

    def _close(self, end_offset: int) -> Iterator[Batch]:
        """End the range of the batch being made before `end_offset`."""
        base_offset, rows, last = self._base_offset, self._rows, self._last
        self._base_offset, self._rows, self._last, self._size = end_offset, [], None, 0
        if end_offset == base_offset:
            return
        assert last is not None
        timestamp = rows[0][1] if rows else self._timestamp
        span = end_offset - base_offset
        newest = max((each if row[3] is None else row[3] for _, each, row in rows), default=0)
        body = _body(rows, base_offset, timestamp, is_dense=len(rows) == span)
        codec, body = pack(last.codec, body)
        yield self._out(
            build_batch(
                body,
                codec=codec,
                count=len(rows),
                span=span,
                base_offset=base_offset,
                timestamp=timestamp,
                max_timestamp=max(timestamp, newest) if rows else timestamp,
                term=last.term,
                index=last.index,
                chain=self.chain,
            )
        )

    def _out(self, batch: Batch) -> Batch:
        self.chain = batch.digest()
        return batch


def _body(
    rows: list[tuple[int, int, Row]], base_offset: int, timestamp: int, *, is_dense: bool
) -> bytes:
    dense: list[Row] = []
    sparse: list[SparseRow] = []
    for offset, batch_timestamp, (key, value, headers, own) in rows:
        if own is None and batch_timestamp != timestamp:
            own = batch_timestamp
        if is_dense:
            dense.append((key, value, headers, own))
        else:
            sparse.append((key, value, headers, own, offset - base_offset))
    return encode_rows(dense) if is_dense else encode_sparse_rows(sparse)


def _size(row: Row) -> int:
    key, value, headers, _ = row
    size = _ROW_BYTES + len(key or b"") + len(value or b"")
    for name, text in (headers or {}).items():
        # A text takes four bytes a character at most, and five in front.
        size += 4 * (len(name) + len(text)) + 10
    return size


def pack_mask(mask: Buffer) -> bytes:
    return zlib.compress(mask, 1)


def unpack_mask(packed: bytes) -> bytes:
    """Undo `pack_mask`; raises ValueError for anything else."""
    decompressor = zlib.decompressobj()
    try:
        mask = decompressor.decompress(packed, MASK_RECORDS_MAX + 1)
    except zlib.error as error:
        raise ValueError(f"no mask: {error}") from None
    if not decompressor.eof or len(mask) > MASK_RECORDS_MAX or mask.strip(b"\0\1"):
        raise ValueError("no mask: not whole, too long, or of other bytes than 0 and 1")
    return mask
