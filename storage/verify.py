"""Checks a log piece by piece: checksums, offsets, and the chain of digests, which reads do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .batch import Batch

if TYPE_CHECKING:
    from .log import Log


class Cursor(NamedTuple):
    """Where to go on, and what is known of the batch before that."""

    offset: int = 0
    last_offset: int | None = None
    """Of the batch before; None if it is not to be blamed."""
    digest: bytes | None = None
    """What the next batch has to carry; None if it is unknown."""
    swaps: int = 0
    """`Log.swaps` of that time: compacted since then, there may be other batches."""


def verify(log: Log, at: Cursor, bytes_max: int) -> tuple[Cursor, int]:
    """Check the next batches, one at least, up to `bytes_max`; return where to go on, and bytes.

    Raises DamagedBatch. Of two batches that are good and do not belong together the first is to
    blame, if the cursor knows it: it can be compared with another copy before the second.
    """
    at, batches = read_verified(log, at, bytes_max)
    return at, sum(batch.size for batch in batches)


def read_verified(
    log: Log, at: Cursor, bytes_max: int, *, end: int | None = None
) -> tuple[Cursor, list[Batch]]:
    """Do the same for batches that begin before `end`, and return them."""
    if at.offset < log.first_offset:
        at = Cursor(log.first_offset, swaps=log.swaps)
    if at.swaps != log.swaps:
        at = Cursor(log.segment_start(at.offset), swaps=log.swaps)
    batches = log.read(at.offset, bytes_max, below_start=True, end=end)
    if end is not None:
        batches = [batch for batch in batches if batch.base_offset < end]
    for batch in batches:
        if at.digest not in (None, batch.chain):
            blamed = batch.base_offset
            if at.last_offset is not None and at.last_offset >= log.first_offset:
                blamed = at.last_offset
            reason = f"the batch at offset {batch.base_offset} continues another history"
            raise log.distrust(blamed, reason)
        at = Cursor(batch.next_offset, batch.base_offset, log.link_behind(batch), log.swaps)
        if log.is_seam(batch.next_offset):
            # Whether the two belong together the seam says, which is no part of either.
            at = at._replace(last_offset=None)
    return at, batches
