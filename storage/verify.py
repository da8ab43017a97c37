"""Checks a log piece by piece: checksums, offsets, and the chain of digests, which reads do not."""

from __future__ import annotations

from typing import NamedTuple

from .log import Log


class Cursor(NamedTuple):
    """Where to go on, and what is known of the batch before that."""

    offset: int = 0
    last_offset: int | None = None
    """Of the batch before; None if it is not to be blamed."""
    digest: bytes | None = None
    """Of the batch before; None if it is unknown."""


def verify(log: Log, at: Cursor, bytes_max: int) -> tuple[Cursor, int]:
    """Check the next batches, one at least, up to `bytes_max`; return where to go on, and bytes.

    Raises DamagedBatch. Of two batches that are good and do not belong together the first is to
    blame, if the cursor knows it: it can be compared with another copy before the second.
    """
    if at.offset < log.first_offset:
        at = Cursor(log.first_offset)
    batches = log.read(at.offset, bytes_max, below_start=True)
    for batch in batches:
        if at.digest not in (None, batch.chain):
            blamed = batch.base_offset
            if at.last_offset is not None and at.last_offset >= log.first_offset:
                blamed = at.last_offset
            reason = f"the batch at offset {batch.base_offset} continues another history"
            raise log.distrust(blamed, reason)
        at = Cursor(batch.next_offset, batch.base_offset, batch.digest())
    return at, sum(batch.size for batch in batches)
