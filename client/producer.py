"""A producer that collects records into batches and keeps several batches under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from .arguments import checked_compression, checked_count
from .batch import PendingBatch
from .batch_format import BARE_ROW_BYTES, Row, row_of, row_size
from .bulk import Bulk
from .errors import Refused
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
        self._batch_bytes = config.batch_bytes
        self._batch_records = config.batch_records
        self._buffer_bytes = config.buffer_bytes
        self._on_close = on_close
        self._open = PendingBatch()
        self._linger: asyncio.TimerHandle | None = None
        self._buffered_bytes = 0
        self._closed_count = 0
        self._settled_count = 0
        self._settling: asyncio.Future[None] | None = None
        self._is_turn_due = False
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
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
        if type(value) is bytes and key is None and headers is None and timestamp is None:
            # What most records are, without a detour: this runs for each of millions.
            row: Row | bytes = value
            size = len(value) + BARE_ROW_BYTES
        else:
            row = row_of(record_of(value, key=key, headers=headers, timestamp=timestamp))
            size = row_size(row)
        if self._is_turn_due or self._buffered_bytes + size > self._buffer_bytes:
            await self._wait_for_room(size)
        self._check_open()
        loop = self._loop or self._bound_loop()
        future: asyncio.Future[int] = loop.create_future()
        batch = self._open
        if batch.size + size > self._batch_bytes:
            batch = self._batch_for(size)
        batch.add(row, size, future)
        self._see_added(batch, size)
        return future

    async def send_many(self, values: Iterable[Record | bytes | str]) -> asyncio.Future[list[int]]:
        """Accept many records and return one future of all their offsets; wait for room as `send`.

        It keeps one order with `send` and costs a fraction of it for each record. The values are
        all checked before the first is accepted. They travel in as many batches as the limits
        ask for, so others' records may come between them, as may what other tasks send through
        this producer while this call waits. Cancelled while it waits, it has accepted a part.

        The future's offsets are in the order of the values. It fails with Refused if none of them
        is written, with MixedOutcome, which tells of each, if they fared differently.

        Raises TypeError or ValueError for values that cannot be sent, RuntimeError when closed.
        """
        loop = self._loop or self._bound_loop()
        bulk = Bulk(values, loop.create_future())
        self._check_fits(bulk.row_bytes_max)
        self._check_open()
        while size := bulk.next_size:
            if self._is_turn_due or self._buffered_bytes + size > self._buffer_bytes:
                await self._wait_for_room(size)
            if self._is_closed:
                bulk.refuse_rest(Refused("the producer was closed before it accepted the record"))
                break
            batch = self._batch_for(size)
            room = min(self._batch_bytes - batch.size, self._buffer_bytes - self._buffered_bytes)
            rows, taken, part = bulk.take(self._batch_records - len(batch.rows), room)
            batch.add_part(rows, taken, part)
            self._see_added(batch, taken)
        return bulk.future

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        """Ask for the loop once: to find the running one is a call of the system each time."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the producer is closed")

    def _check_fits(self, size: int) -> None:
        if size > self._buffer_bytes:
            raise ValueError(f"a record of {size} bytes does not fit into buffer_bytes")

    async def _wait_for_room(self, size: int) -> None:
        self._check_fits(size)
        if self._is_turn_due:
            # A sender that never waits would keep the loop from sending what it has filled.
            self._is_turn_due = False
            await asyncio.sleep(0)
        while self._buffered_bytes + size > self._buffer_bytes:
            self._close_batch()
            await self._next_settled()

    def _batch_for(self, size: int) -> PendingBatch:
        """Return the open batch, a new one if it has no room for a record of `size`."""
        if self._open.size + size > self._batch_bytes and self._open.rows:
            self._close_batch()
        return self._open

    def _see_added(self, batch: PendingBatch, size: int) -> None:
        """Close the open batch if it is full now, else at the end of its linger."""
        self._buffered_bytes += size
        if batch.size >= self._batch_bytes or len(batch.rows) >= self._batch_records:
            self._close_batch()
        elif self._linger is None:
            loop = self._loop or self._bound_loop()
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
