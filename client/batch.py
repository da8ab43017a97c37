"""The records that a batching producer will send as one append, each with its sender's future."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .answers import Receipt
from .batch_format import Packed, pack_rows_aside
from .errors import CuteError


@dataclass(slots=True, eq=False)
class PendingBatch:
    closed_at: float = 0.0
    """When it was complete, seconds of the monotonic clock."""
    rows: list[bytes] = field(default_factory=list)
    """The packed records, until all are packed into one."""
    size: int = 0
    """Bytes of the packed records."""
    max_timestamp: int | None = None
    """The largest that a record carries."""
    losses: int = 0
    """How often the cluster had forgotten the producer it was sent by."""
    _packed: Packed | None = None
    _futures: list[asyncio.Future[int]] = field(default_factory=list)

    def add(self, row: bytes, timestamp: int | None, future: asyncio.Future[int]) -> None:
        self.rows.append(row)
        self._futures.append(future)
        self.size += len(row)
        if timestamp is not None:
            self.max_timestamp = max(timestamp, self.max_timestamp or 0)

    async def packed(self, compression: str | None) -> Packed:
        """Return the batch but for its header, the same whenever it is sent."""
        if self._packed is None:
            self._packed = await pack_rows_aside(self.rows, self.max_timestamp, compression)
            self.rows = []
        return self._packed

    def succeed(self, receipt: Receipt) -> None:
        """Tell every sender its record's offset."""
        for offset, future in enumerate(self._futures, receipt.first_offset):
            if not future.done():
                future.set_result(offset)

    def fail(self, failure: CuteError) -> None:
        for future in self._futures:
            if not future.done():
                future.set_exception(failure)
