"""The system under test as the loads see it, and a Cute Logger cluster as one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

from ....client import AsyncClient, BatchingProducer
from .case import Case

PAGE_RECORDS = 10_000
SEND_RECORDS_MAX = 64

Acknowledged = Callable[[BaseException | None], None]
"""Called once for the values of one `send`, when all are acknowledged, or with what went wrong."""


class Sender(Protocol):
    """Many values under way, in order. Leaving its context waits for what is under way."""

    async def send(self, values: Sequence[bytes], acknowledged: Acknowledged) -> None:
        """Accept the values; wait while as much as allowed is under way."""


class Target(Protocol):
    """One client of the system; used on one event loop."""

    def values_per_send(self, value_bytes: int) -> int:
        """Return how many values `send` should be given at a time."""

    async def create(self, stream: str) -> None: ...

    async def remove(self, stream: str) -> None: ...

    async def append(self, stream: str, value: bytes) -> None:
        """Return when the value is acknowledged."""

    def sender(self, stream: str) -> AbstractAsyncContextManager[Sender]: ...

    def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the oldest `count` values of a stream that has as many."""

    def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield all values from the oldest on, as they arrive, for ever."""

    async def close(self) -> None: ...


class CuteTarget:
    """A cluster through the public client."""

    def __init__(self, servers: Sequence[str], case: Case) -> None:
        self._client = AsyncClient(servers)
        self._case = case

    def values_per_send(self, value_bytes: int) -> int:
        return max(1, min(SEND_RECORDS_MAX, self._case.batch_bytes // value_bytes // 2))

    async def create(self, stream: str) -> None:
        await self._client.create_stream(stream)

    async def remove(self, stream: str) -> None:
        await self._client.delete_stream(stream)

    async def append(self, stream: str, value: bytes) -> None:
        await self._client.produce(stream, value)

    @asynccontextmanager
    async def sender(self, stream: str) -> AsyncIterator[Sender]:
        case = self._case
        async with self._client.producer(
            stream,
            linger_ms=case.linger_ms,
            batch_bytes=case.batch_bytes,
            in_flight=case.in_flight,
            # Twice what can be under way: enough for the next batches, and latency stays honest.
            buffer_bytes=2 * case.in_flight * max(case.batch_bytes, 2 * case.value_bytes),
        ) as producer:
            yield _CuteSender(producer)

    async def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        pages = self._client.read_pages(stream, 0, count, page_records=PAGE_RECORDS)
        async with aclosing(pages):
            async for page in pages:
                yield [record.value or b"" for record in page.records]

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        async with aclosing(self._client.tail_pages(stream, 0)) as pages:
            async for page in pages:
                yield [record.value or b"" for record in page.records]

    async def close(self) -> None:
        await self._client.close()


class _CuteSender:
    def __init__(self, producer: BatchingProducer) -> None:
        self._producer = producer

    async def send(self, values: Sequence[bytes], acknowledged: Acknowledged) -> None:
        future = await self._producer.send_many(values)
        future.add_done_callback(lambda done: acknowledged(done.exception()))
