"""What clients were told, checked against what the nodes serve."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from cute_logger.client import AsyncClient, OutcomeUnknown, Receipt, Refused


@dataclass
class History:
    """Appends unique values through all nodes, without end, and remembers every answer."""

    urls: list[str]
    stream: str
    acknowledged: dict[bytes, Receipt] = field(default_factory=dict)
    acknowledged_at: list[float] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)
    unknown: set[bytes] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self, writers: int, timeout_s: float) -> None:
        """Append until cancelled; each writer has one append under way."""
        async with AsyncClient(self.urls) as client:
            await asyncio.gather(*(self._write(client, timeout_s) for _ in range(writers)))

    async def _write(self, client: AsyncClient, timeout_s: float) -> None:
        while True:
            value = b"value %d" % next(self._numbers)
            self.unknown.add(value)
            try:
                receipt = await client.produce(self.stream, value, timeout=timeout_s)
            except Refused:
                self.refused.add(value)
                self.unknown.discard(value)
                await asyncio.sleep(0.01)
            except OutcomeUnknown:
                pass
            else:
                self.acknowledged[value] = receipt
                self.acknowledged_at.append(time.monotonic())
                self.unknown.discard(value)

    async def wait_acknowledged(self, count: int, deadline_s: float = 60) -> None:
        async with asyncio.timeout(deadline_s):
            while len(self.acknowledged) < count:
                await asyncio.sleep(0.01)

    def longest_gap_s(self) -> float:
        pairs = itertools.pairwise(sorted(self.acknowledged_at))
        return max(after - before for before, after in pairs)

    def check(self, served: list[bytes | None]) -> None:
        """Every acknowledged value once, at its offset; no refused value; nothing twice."""
        for value, receipt in self.acknowledged.items():
            assert served[receipt.first_offset] == value
        assert len(served) == len(set(served)), "a value is there twice"
        assert not self.refused & set(served), "a refused value was written"
        assert set(served) <= set(self.acknowledged) | self.unknown


async def served_by(url: str, stream: str) -> list[bytes | None]:
    """All values of the stream as the node at `url` serves them, after all acknowledged ones."""
    values: list[bytes | None] = []
    async with AsyncClient([url]) as client:
        while True:
            records = await client.read(
                stream, offset=len(values), limit=5000, consistency="linearizable"
            )
            if not records:
                return values
            assert records[0].offset == len(values)
            values += [record.value for record in records]
