"""One run of sealed segments on its way to become one segment.

Step by step, so that whoever has other things to do with the log does them in between. What is
written has another name until it is whole and durable; `Log.swap` then gives it its own and puts it
in the place of the run.

    00000000000000001000-3.log.new, .index.new   while it is made
    00000000000000001000-3.log, .index           from the swap on

The chain is begun anew: the first batch carries what the run's first one carried, the others their
predecessor's digest. The batch behind the run still carries the digest of a batch that is gone,
which therefore is kept as the `bridge` (`log_state.Compacted`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .batch import Batch
from .compaction import Rewriter
from .errors import OffsetOutOfRange
from .filesystem import Buffer
from .log_state import Compacted
from .names import SegmentName
from .sealed import SealedSegment
from .verify import Cursor, read_verified

if TYPE_CHECKING:
    from .log import Log


class Run(NamedTuple):
    """Sealed segments, one behind the other: `[base_offset, end_offset)`."""

    base_offset: int
    end_offset: int
    generation: int
    """Of the segment they become."""

    @classmethod
    def of(cls, segments: list[SealedSegment]) -> Run:
        generation = 1 + max(each.generation for each in segments)
        return cls(segments[0].base_offset, segments[-1].next_offset, generation)


class Made(NamedTuple):
    """What became of a run."""

    size: int
    """Bytes of the new store."""
    records: int
    digest: bytes
    bridge: bytes


class Compaction:
    """The new segment of one run. Nobody compacts the same log meanwhile."""

    def __init__(self, log: Log, run: Run) -> None:
        """Raises OSError."""
        self.run = run
        self.made: Made | None = None
        """Once all is written and durable."""
        self.records_before = 0
        """Of the run, as far as it was read."""
        self._log = log
        self._cursor = Cursor(run.base_offset, swaps=log.swaps)
        self._rewriter: Rewriter | None = None
        self._writer = log.new_segment(SegmentName(run.base_offset, run.generation))

    def step(self, bytes_max: int, mask: Callable[[Batch], Buffer]) -> int:
        """Go on with the next batches, and return how many bytes these are; the last step also
        sets `made`. `mask` says which records of a batch stay.

        Raises DamagedBatch (begin anew when it is mended), OffsetOutOfRange if the run was trimmed
        away, OSError.
        """
        assert self.made is None
        assert self._cursor.swaps == self._log.swaps
        log, end_offset = self._log, self.run.end_offset
        if log.first_offset > self.run.base_offset:
            raise OffsetOutOfRange(self.run.base_offset, log.first_offset, log.log_end_offset)
        self._cursor, batches = read_verified(log, self._cursor, bytes_max, end=end_offset)
        self.records_before += sum(batch.count for batch in batches)
        if self._rewriter is None:
            self._rewriter = Rewriter(self.run.base_offset, batches[0].chain)
        written = [out for batch in batches for out in self._rewriter.add(batch, mask(batch))]
        is_last = self._cursor.offset == end_offset
        if is_last:
            written += self._rewriter.finish()
        if written:
            self._writer.append(written)
        if is_last:
            bridge = self._cursor.digest or self._bridge()
            self._writer.finish(self._rewriter.chain)
            self.made = Made(self._writer.size, self._rewriter.count, self._rewriter.chain, bridge)
        return sum(batch.size for batch in batches)

    def _bridge(self) -> bytes:
        """What the batch behind the run carries, if only that one knows it."""
        return self._log.read(self.run.end_offset, 0, below_start=True)[0].chain

    def abandon(self) -> None:
        """Leave the run as it is."""
        self._writer.abandon()


def swap(log: Log, run: Run, made: Made) -> None:
    """Put what was made in the place of the run."""
    seam = Compacted(run.base_offset, run.generation, made.digest, made.bridge)
    log.swap(SealedSegment(run.base_offset, run.end_offset, made.size, run.generation, seam))
