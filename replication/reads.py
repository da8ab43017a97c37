"""Local reads: a committed prefix of every stream, on any node.

What was applied lately comes from memory, the rest from the streams' files on their own lane. A
reader at the high watermark waits for an append instead of asking again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..storage.batch import Batch
from ..storage.errors import DamagedBatch, OffsetOutOfRange
from .errors import (
    BeyondHighWatermark,
    NotCaughtUp,
    NotReady,
    OffsetTrimmed,
    ShuttingDown,
    UnknownIdempotencyKey,
    Unreadable,
    unknown_stream,
)
from .indexer import Indexer
from .machine import StateMachine, receipt
from .raft import RaftCore
from .repair import Repairs
from .runtime import Lane, Runtime
from .stream import Stream, describe
from .stream_files import StreamFiles
from .types import ReadResult, Receipt, StreamInfo

T = TypeVar("T")

MEND_S = 3.0
"""A reader waits so long for damaged bytes to be mended."""
_TIME_READ_BYTES = 1 << 16
"""The time index leads to the batch itself, but for the newest: those are in memory."""


class LocalReads:
    """The reading half of a replica."""

    def __init__(self) -> None:
        self._machine: StateMachine
        self._files: StreamFiles
        self._core: RaftCore
        self._runtime: Runtime
        self._repairs: Repairs
        self._indexer: Indexer
        self._stopping = False
        self._applied_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._stream_waiters: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def _serve(
        self,
        machine: StateMachine,
        files: StreamFiles,
        core: RaftCore,
        runtime: Runtime,
        repairs: Repairs,
        indexer: Indexer,
    ) -> None:
        """Read from these from now on."""
        self._machine = machine
        self._files = files
        self._core = core
        self._runtime = runtime
        self._repairs = repairs
        self._indexer = indexer

    @property
    def applied_index(self) -> int:
        return self._core.applied_index()

    @property
    def term(self) -> int:
        return self._core.term()

    @property
    def lag_ms(self) -> int:
        """Milliseconds since this node last heard from the leader; 0 on the leader."""
        return int(min(self._core.silence_s() * 1000, 2**53))

    def streams(self) -> list[StreamInfo]:
        self._check_synced()
        return [describe(self._machine.streams[name]) for name in sorted(self._machine.streams)]

    def stream(self, name: str) -> StreamInfo:
        return describe(self._stream(name))

    def _check_synced(self) -> None:
        if not self._core.synced:
            raise NotReady("this node has not caught up since it started")

    def _stream(self, name: str) -> Stream:
        self._check_synced()
        stream = self._machine.streams.get(name)
        if stream is None:
            raise unknown_stream(name)
        return stream

    def idempotency_receipt(self, stream: str, key: str) -> Receipt:
        """The receipt of the append that used `key`."""
        found = self._stream(stream)
        log_time = self._machine.log_time
        appended = found.keys.find(key, log_time)
        if appended is None:
            raise UnknownIdempotencyKey(
                "this key was not used since window_start",
                window_start=found.keys.window_start(log_time),
            )
        return receipt(stream, appended, duplicate=True)

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        """Wait until entry `index` is applied here; NotCaughtUp after `timeout_s`."""
        if self.applied_index >= index:
            return
        waiter = asyncio.get_running_loop().create_future()
        entry = (index, waiter)
        self._applied_waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise NotCaughtUp(
                f"this node has applied {self.applied_index}, not yet {index}",
                applied_index=self.applied_index,
            ) from None
        finally:
            self._applied_waiters.remove(entry)

    async def read(
        self, name: str, offset: int | None, *, bytes_max: int, wait_ms: int = 0
    ) -> ReadResult:
        """Whole batches from the one that holds `offset` (None: log start; negative: from the
        tail).

        At the high watermark it waits up to `wait_ms` for more. Raises UnknownStream,
        OffsetTrimmed, BeyondHighWatermark, NotReady; Unreadable if the bytes on disk are not what
        was written and no other node helped in time.
        """
        stream = self._stream(name)
        start = stream.log_start_offset if offset is None else offset
        if start < 0:
            start = await self.tail_offset(name, -start)
            stream = self._stream(name)
        if start == stream.next_offset and wait_ms > 0:
            await self._wait_growth(stream, start, wait_ms / 1000)
            stream = self._stream(name)
        _check_range(stream, start)
        batches = await self._batches(stream, start, bytes_max)
        return ReadResult(
            stream.id,
            batches,
            stream.log_start_offset,
            stream.next_offset,
            self.applied_index,
            self.term,
            self.lag_ms,
        )

    async def _wait_growth(self, stream: Stream, offset: int, timeout_s: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._stream_waiters[stream.name]
        waiters.add(waiter)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._stream_waiters.pop(stream.name, None)
        if self._stopping:
            raise ShuttingDown("this node is shutting down")

    async def _batches(self, stream: Stream, offset: int, bytes_max: int) -> list[Batch]:
        """Empty at the high watermark, or if the stream is gone. OffsetTrimmed."""
        if offset >= stream.next_offset:
            return []
        recent = self._machine.recent.read(stream.id, offset, bytes_max)
        if recent is not None:
            return recent
        swaps = self._machine.recent.swaps
        found = await self._from_files(
            stream, offset, lambda: self._files.read(stream.id, offset, bytes_max)
        )
        self._keep(stream, found, swaps)
        return found

    def _keep(self, stream: Stream, found: list[Batch], swaps: int) -> None:
        if self._machine.streams.get(stream.name) is stream:
            self._machine.recent.keep(stream.id, found, swaps)

    async def _from_files(self, stream: Stream, offset: int, job: Callable[[], T]) -> T:
        """Read from `offset` on, once more where damage was mended. OffsetTrimmed."""
        deadline = asyncio.get_running_loop().time() + MEND_S
        while True:
            try:
                return await self._on_streams_lane(job)
            except OffsetOutOfRange:
                # Trimmed meanwhile: apply moves the start before the files do.
                _check_range(stream, offset)
                raise
            except DamagedBatch as damage:
                if not await self._mended(stream.id, damage, deadline):
                    raise self._unreadable(stream, damage) from damage

    def _unreadable(self, stream: Stream, damage: DamagedBatch) -> Unreadable:
        copies = self._repairs.copies(stream.id, damage.offset)
        found = ", ".join(f"{node}'s is {what}" for node, what in copies.items())
        return Unreadable(
            f"the records of {stream.name} at offset {damage.offset} are damaged here;"
            f" of the copies {found or 'there is none'}",
            reason="damaged",
            stream=stream.name,
            offset=damage.offset,
        )

    async def _mended(self, stream_id: int, damage: DamagedBatch, deadline: float) -> bool:
        """Wait for the damage to be mended, up to `deadline`."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def answered(is_mended: bool) -> None:
            if not answer.done():
                answer.set_result(is_mended)

        self._repairs.report(stream_id, damage, answered)
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            return False

    async def tail_offset(self, name: str, count: int) -> int:
        """Offset of the first of the last `count` records; the log start if there are fewer.

        Where compaction removed records they are counted, in one segment at most.
        """
        stream = self._stream(name)
        for row in reversed(stream.segments.rows()):
            if row.count < count:
                count -= row.count
                continue
            if row.generation:
                return await self._counted_back(stream, row.base_offset, row.end_offset, count)
            return max(stream.log_start_offset, row.end_offset - count)
        return stream.log_start_offset

    async def _counted_back(self, stream: Stream, start: int, end: int, count: int) -> int:
        """Offset of the record that has `count - 1` behind it in [start, end)."""
        offset = max(start, stream.log_start_offset)
        newest: deque[tuple[int, int]] = deque()
        """Base offset and records of the batches that matter, as far as they were looked at."""
        held = 0
        while offset < end:
            try:
                batches = await self._batches(stream, offset, 1 << 20)
            except OffsetTrimmed:
                offset = stream.log_start_offset
                continue
            if not batches:
                break
            for batch in batches:
                if batch.base_offset >= end:
                    break
                newest.append((batch.base_offset, batch.count))
                held += batch.count
                while newest and held - newest[0][1] >= count:
                    held -= newest.popleft()[1]
            offset = batches[-1].next_offset
        if not newest or held < count:
            return stream.log_start_offset
        return await self._nth_record(stream, newest[0][0], held - count)

    async def _nth_record(self, stream: Stream, base_offset: int, number: int) -> int:
        """Offset of one record of a batch."""
        start = max(base_offset, stream.log_start_offset)
        batches = await self._batches(stream, start, 0)
        offsets = batches[0].rows()[0] if batches else ()
        found = offsets[number] if number < len(offsets) else base_offset
        return max(found, stream.log_start_offset)

    async def find_timestamp(self, name: str, timestamp_ms: int) -> int:
        """Offset of the first record whose timestamp is at or after `timestamp_ms`; the high
        watermark if none.
        """
        stream = self._stream(name)
        offset = -1
        while offset < stream.next_offset:
            try:
                if offset < stream.log_start_offset:
                    offset, batches = await self._time_hint(stream, timestamp_ms)
                    if not batches:
                        continue
                else:
                    batches = await self._batches(stream, offset, _TIME_READ_BYTES)
            except OffsetTrimmed:
                continue
            for batch in batches:
                if batch.max_timestamp >= timestamp_ms:
                    for record in batch.records_from(offset, few=True):
                        if record.timestamp >= timestamp_ms:
                            return record.offset
                offset = batch.next_offset
            if not batches:
                raise unknown_stream(name)
        return offset

    async def _time_hint(self, stream: Stream, timestamp_ms: int) -> tuple[int, list[Batch]]:
        """An offset before which no record is at or after `timestamp_ms`, and the batches there, if
        a file has them. OffsetTrimmed.
        """
        start, stream_id, swaps = stream.log_start_offset, stream.id, self._machine.recent.swaps
        offset, found = await self._from_files(
            stream, start, lambda: self._files.read_at_time(stream_id, timestamp_ms, start)
        )
        self._keep(stream, found, swaps)
        return offset, found

    async def _on_streams_lane(self, job: Callable[[], T]) -> T:
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(future: Future[T]) -> None:
            if result.done():
                return
            error = future.exception()
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(future.result())

        self._runtime.run(Lane.STREAMS, job, done)
        return await result

    def _wake(self) -> None:
        """The engine applied something."""
        for name in self._machine.changed:
            for waiter in self._stream_waiters.get(name, ()):
                resolve(waiter)
        if self._applied_waiters:
            applied = self.applied_index
            for index, waiter in self._applied_waiters:
                if index <= applied:
                    resolve(waiter)

    def _wake_all(self) -> None:
        for waiters in self._stream_waiters.values():
            for waiter in waiters:
                resolve(waiter)


def resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _check_range(stream: Stream, offset: int) -> None:
    bounds = {
        "log_start_offset": stream.log_start_offset,
        "high_watermark": stream.next_offset,
    }
    if offset < stream.log_start_offset:
        raise OffsetTrimmed(f"offset {offset} was trimmed", **bounds)
    if offset > stream.next_offset:
        raise BeyondHighWatermark(f"offset {offset} does not exist yet", **bounds)
