"""A producer that collects records into batches and keeps several batches under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from .arguments import checked_compression, checked_count
from .batch import PendingBatch
from .batch_format import pack_row
from .record import Record, record_of
from .window import Append, Window

BATCH_RECORDS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """Raises TypeError or ValueError, naming the setting."""

    linger_ms: float = 5
    """How long the first record of a batch waits for more."""
    batch_bytes: int = 131072
    """A batch is sent when it has reached this size; one larger record is a batch of its own."""
    in_flight: int = 5
    """Batches under way at the same time."""
    compression: str | None = None
    """`zstd` or `lz4`: batches are compressed before they are sent, where that makes them smaller.
    """
    buffer_bytes: int = 32 * 1024 * 1024
    """Bytes accepted and not yet acknowledged, at most; `send` waits for room."""
    timeout_s: float = 30.0
    """How long a batch is tried, from when it was first sent."""
    batch_records: int = BATCH_RECORDS_MAX
    """A batch is sent when it has this many records."""

    def __post_init__(self) -> None:
        if not isinstance(self.linger_ms, int | float) or isinstance(self.linger_ms, bool):
            raise TypeError(f"linger_ms: a number is wanted, not {type(self.linger_ms).__name__}")
        if not 0 <= self.linger_ms < float("inf"):
            raise ValueError(f"linger_ms: {self.linger_ms} is not 0 or more")
        for name in ("batch_bytes", "in_flight", "buffer_bytes", "batch_records"):
            checked_count(name, getattr(self, name), least=1)
        if self.batch_records > BATCH_RECORDS_MAX:
            raise ValueError(f"batch_records: at most {BATCH_RECORDS_MAX}")
        checked_compression(self.compression)


class BatchingProducer:
    """Keeps the order of records in all cases; each is appended at most once.

    Leaving `async with` sends all that was accepted, after an exception, too. Failures are told
    by the futures alone: when a batch is refused, later ones go on; when the outcome of a batch
    stays unknown, everything accepted until then fails with OutcomeUnknown.
    """

    def __init__(
        self,
        stream: str,
        config: ProducerConfig,
        *,
        append: Append,
        register: Callable[[float], Awaitable[tuple[int, int]]],
        on_close: Callable[[BatchingProducer], None],
    ) -> None:
        self._config = config
        self._on_close = on_close
        self._open = PendingBatch()
        self._linger: asyncio.TimerHandle | None = None
        self._buffered_bytes = 0
        self._closed_count = 0
        self._settled_count = 0
        self._settling: asyncio.Future[None] | None = None
        self._is_turn_due = False
        self._is_closed = False
        self._runner: asyncio.Task[None] | None = None
        self._window = Window(
            stream,
            in_flight=config.in_flight,
            timeout_s=config.timeout_s,
            compression=config.compression,
            append=append,
            register=register,
            close_open_batch=self._close_batch,
            on_settled=self._on_settled,
        )

    async def send(
        self,
        value: Record | bytes | str | None,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
    ) -> asyncio.Future[int]:
        """Accept one record and return the future of its offset; wait while the buffer is full.

        Raises TypeError or ValueError for a record that cannot be sent, RuntimeError when closed.
        """
        record = record_of(value, key=key, headers=headers, timestamp=timestamp)
        row = pack_row(record)
        if len(row) > self._config.buffer_bytes:
            raise ValueError(f"a record of {len(row)} bytes does not fit into buffer_bytes")
        if self._is_turn_due:
            # A sender that never waits would keep the loop from sending what it has filled.
            self._is_turn_due = False
            await asyncio.sleep(0)
        while self._buffered_bytes + len(row) > self._config.buffer_bytes:
            self._close_batch()
            await self._next_settled()
        if self._is_closed:
            raise RuntimeError("the producer is closed")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._accept(row, record.timestamp, future)
        return future

    def _accept(self, row: bytes, timestamp: int | None, future: asyncio.Future[int]) -> None:
        if self._open.rows and self._open.size + len(row) > self._config.batch_bytes:
            self._close_batch()
        self._open.add(row, timestamp, future)
        self._buffered_bytes += len(row)
        is_full = self._open.size >= self._config.batch_bytes
        if is_full or len(self._open.rows) >= self._config.batch_records:
            self._close_batch()
        elif self._linger is None:
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(self._config.linger_ms / 1000, self._close_batch)

    def _close_batch(self) -> None:
        """Hand the open batch over for sending."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._open.rows:
            return
        batch, self._open = self._open, PendingBatch()
        batch.closed_at = monotonic()
        self._closed_count += 1
        self._is_turn_due = True
        self._window.submit(batch)
        if self._is_closed:
            return
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._window.run())

    def _on_settled(self, batch: PendingBatch) -> None:
        self._buffered_bytes -= batch.size
        self._settled_count += 1
        if self._settling is not None:
            self._settling.set_result(None)
            self._settling = None

    async def _next_settled(self) -> None:
        """Wait until the next batch is settled."""
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settling)

    async def flush(self) -> None:
        """Send what was accepted and wait until each record's outcome is known.

        It raises nothing about them: their futures do.
        """
        self._close_batch()
        wanted = self._closed_count
        while self._settled_count < wanted:
            await self._next_settled()

    async def close(self) -> None:
        """Flush, then accept nothing more."""
        try:
            await self.flush()
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Accept nothing more; what is not settled yet fails with OutcomeUnknown."""
        self._is_closed = True
        self._on_close(self)
        self._close_batch()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        await self._window.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
