"""The records that a batching producer sends as one append, and who is told of their outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from .answers import Receipt
from .batch_format import Packed, Row, pack_rows_aside
from .bulk import Part
from .errors import CuteError


class _Singles:
    """Records that follow each other in a batch, each with its sender's future."""

    __slots__ = ("futures",)

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[int]] = []

    def succeed(self, first_offset: int) -> int:
        """Return the offset behind the last."""
        for offset, future in enumerate(self.futures, first_offset):
            if not future.done():
                future.set_result(offset)
        return first_offset + len(self.futures)

    def fail(self, failure: CuteError) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(failure)


@dataclass(slots=True, eq=False)
class PendingBatch:
    closed_at: float = 0.0
    """When it was complete, seconds of the monotonic clock."""
    rows: list[Row | bytes] = field(default_factory=list)
    """The records, until they are packed."""
    size: int = 0
    """Bytes that they take, to within a few for each."""
    losses: int = 0
    """How often the cluster had forgotten the producer it was sent by."""
    _packed: Packed | None = None
    _senders: list[_Singles | Part] = field(default_factory=list)
    """Whom to tell, in the order of the records."""
    _singles: _Singles | None = None
    """The last sender, if it takes single records."""

    def add(self, row: Row | bytes, size: int, future: asyncio.Future[int]) -> None:
        self.rows.append(row)
        self.size += size
        singles = self._singles
        if singles is None:
            singles = self._singles = _Singles()
            self._senders.append(singles)
        singles.futures.append(future)

    def add_part(self, rows: Sequence[Row | bytes], size: int, part: Part) -> None:
        self.rows += rows
        self.size += size
        self._singles = None
        self._senders.append(part)

    async def packed(self, compression: str | None) -> Packed:
        """Return the batch but for its header, the same whenever it is sent."""
        if self._packed is None:
            self._packed = await pack_rows_aside(self.rows, compression)
            self.rows = []
        return self._packed

    def succeed(self, receipt: Receipt) -> None:
        """Tell every sender its records' offsets."""
        offset = receipt.first_offset
        for sender in self._senders:
            offset = sender.succeed(offset)

    def fail(self, failure: CuteError) -> None:
        for sender in self._senders:
            sender.fail(failure)
