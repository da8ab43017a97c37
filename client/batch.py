"""The records that a batching producer will send as one append, each with its sender's future."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from .answers import Receipt
from .errors import CuteError


@dataclass(slots=True, eq=False)
class PendingBatch:
    closed_at: float = 0.0
    """When it was complete, seconds of the monotonic clock."""
    packed: list[bytes] = field(default_factory=list)
    size: int = 0
    """Bytes of the packed records."""
    losses: int = 0
    """How often the cluster had forgotten the producer it was sent by."""
    _futures: list[asyncio.Future[int]] = field(default_factory=list)

    def add(self, packed: bytes, future: asyncio.Future[int]) -> None:
        self.packed.append(packed)
        self._futures.append(future)
        self.size += len(packed)

    def succeed(self, receipt: Receipt) -> None:
        """Tell every sender its record's offset."""
        for offset, future in enumerate(self._futures, receipt.first_offset):
            if not future.done():
                future.set_result(offset)

    def fail(self, failure: CuteError) -> None:
        for future in self._futures:
            if not future.done():
                future.set_exception(failure)
