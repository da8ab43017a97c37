"""The client without asyncio: an `AsyncClient` on an event loop of its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Self, TypeVar

from .answers import ClusterInfo, NodeInfo, Page, Receipt, StreamInfo
from .async_client import DEFAULT_TIMEOUT_S, AsyncClient, Value
from .bulk import listed_values
from .conditions import Condition
from .group_answers import CommitReceipt, GroupInfo, Lease, TxAppend, TxCommit, TxReceipt
from .group_calls import LEASE_TTL_MS
from .index_answers import IndexInfo, SearchPage
from .producer import BatchingProducer
from .record import Record
from .tail import OnGap

T = TypeVar("T")


class _LoopThread:
    """A running event loop; `run` and `iterate` may be called from any other thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="cute-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns. An interrupt in this thread cancels it."""
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(
        self, pages: AsyncGenerator[Page, None] | AsyncGenerator[SearchPage, None]
    ) -> Iterator[Record]:
        """Yield the records page by page: one change of threads per page."""
        try:
            while True:
                try:
                    page = self.run(_next(pages))
                except StopAsyncIteration:
                    return
                yield from page.records
        finally:
            with contextlib.suppress(RuntimeError):  # the client was closed meanwhile
                self.run(pages.aclose())

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


async def _next(
    pages: AsyncGenerator[Page, None] | AsyncGenerator[SearchPage, None],
) -> Page | SearchPage:
    return await anext(pages)


class Client:
    """`AsyncClient` with ordinary methods; may be used by several threads at once."""

    def __init__(self, urls: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """`urls` are base URLs of nodes; one that can be reached is enough."""
        self._client = AsyncClient(urls, timeout=timeout)
        self._thread = _LoopThread()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; a second call does nothing."""
        with contextlib.suppress(RuntimeError):
            self._thread.run(self._client.close())
        self._thread.stop()

    @property
    def session_token(self) -> int:
        """The largest Raft index seen: `after=` for another session that shall see as much."""
        return self._client.session_token

    def produce(
        self,
        stream: str,
        value: Value | list[Record | bytes | str],
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
        if_offset: int | None = None,
        only_if: Condition | None = None,
        idempotency_key: str | None = None,
        compression: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """See `AsyncClient.produce`."""
        return self._thread.run(
            self._client.produce(
                stream,
                value,
                key=key,
                headers=headers,
                timestamp=timestamp,
                if_offset=if_offset,
                only_if=only_if,
                idempotency_key=idempotency_key,
                compression=compression,
                timeout=timeout,
            )
        )

    def producer(self, stream: str, **settings: Any) -> SyncProducer:
        """See `AsyncClient.producer`; futures are those of `concurrent.futures`."""

        async def make() -> BatchingProducer:
            return self._client.producer(stream, **settings)

        return SyncProducer(self._thread, self._thread.run(make()))

    def idempotency_receipt(
        self, stream: str, idempotency_key: str, *, timeout: float | None = None
    ) -> Receipt:
        """See `AsyncClient.idempotency_receipt`."""
        return self._thread.run(
            self._client.idempotency_receipt(stream, idempotency_key, timeout=timeout)
        )

    def read(
        self, stream: str, offset: int | None = None, *, limit: int = 500, **options: Any
    ) -> list[Record]:
        """See `AsyncClient.read`."""
        return self._thread.run(self._client.read(stream, offset, limit=limit, **options))

    def read_page(self, stream: str, offset: int | None = None, **options: Any) -> Page:
        """See `AsyncClient.read_page`."""
        return self._thread.run(self._client.read_page(stream, offset, **options))

    def read_iter(
        self, stream: str, start: int | None = None, stop: int | None = None, **options: Any
    ) -> Iterator[Record]:
        """See `AsyncClient.read_iter`."""
        return self._thread.iterate(self._client.read_pages(stream, start, stop, **options))

    def tail(
        self,
        stream: str,
        start: int | None = None,
        *,
        key: bytes | str | None = None,
        on_gap: OnGap = "raise",
    ) -> Iterator[Record]:
        """See `AsyncClient.tail`."""
        return self._thread.iterate(self._client.tail_pages(stream, start, key=key, on_gap=on_gap))

    def offset_at(self, stream: str, timestamp: int, *, timeout: float | None = None) -> int:
        """See `AsyncClient.offset_at`."""
        return self._thread.run(self._client.offset_at(stream, timestamp, timeout=timeout))

    def commit_offset(
        self,
        group: str,
        stream: str,
        offset: int,
        *,
        lease: Lease | int | None = None,
        timeout: float | None = None,
    ) -> CommitReceipt:
        """See `AsyncClient.commit_offset`."""
        return self._thread.run(
            self._client.commit_offset(group, stream, offset, lease=lease, timeout=timeout)
        )

    def committed_offset(
        self,
        group: str,
        stream: str,
        *,
        consistency: str = "linearizable",
        timeout: float | None = None,
    ) -> int | None:
        """See `AsyncClient.committed_offset`."""
        return self._thread.run(
            self._client.committed_offset(group, stream, consistency=consistency, timeout=timeout)
        )

    def lease(
        self,
        group: str,
        stream: str,
        *,
        member: str | None = None,
        ttl_ms: int = LEASE_TTL_MS,
        timeout: float | None = None,
    ) -> Lease:
        """See `AsyncClient.lease`."""
        return self._thread.run(
            self._client.lease(group, stream, member=member, ttl_ms=ttl_ms, timeout=timeout)
        )

    def release_lease(self, lease: Lease, *, timeout: float | None = None) -> None:
        """See `AsyncClient.release_lease`."""
        self._thread.run(self._client.release_lease(lease, timeout=timeout))

    def groups(self, *, timeout: float | None = None) -> list[GroupInfo]:
        """See `AsyncClient.groups`."""
        return self._thread.run(self._client.groups(timeout=timeout))

    def group(self, name: str, *, timeout: float | None = None) -> GroupInfo:
        """See `AsyncClient.group`."""
        return self._thread.run(self._client.group(name, timeout=timeout))

    def delete_group(self, name: str, *, timeout: float | None = None) -> None:
        """See `AsyncClient.delete_group`."""
        self._thread.run(self._client.delete_group(name, timeout=timeout))

    def transact(
        self,
        appends: Sequence[TxAppend] = (),
        commits: Sequence[TxCommit] = (),
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> TxReceipt:
        """See `AsyncClient.transact`."""
        return self._thread.run(
            self._client.transact(
                appends, commits, idempotency_key=idempotency_key, timeout=timeout
            )
        )

    def create_index(
        self,
        stream: str,
        name: str,
        on: str,
        *,
        kind: str = "btree",
        timeout: float | None = None,
    ) -> IndexInfo:
        """See `AsyncClient.create_index`."""
        return self._thread.run(
            self._client.create_index(stream, name, on, kind=kind, timeout=timeout)
        )

    def drop_index(self, stream: str, name: str, *, timeout: float | None = None) -> None:
        """See `AsyncClient.drop_index`."""
        self._thread.run(self._client.drop_index(stream, name, timeout=timeout))

    def index(self, stream: str, name: str, *, timeout: float | None = None) -> IndexInfo:
        """See `AsyncClient.index`."""
        return self._thread.run(self._client.index(stream, name, timeout=timeout))

    def indexes(self, stream: str, *, timeout: float | None = None) -> list[IndexInfo]:
        """See `AsyncClient.indexes`."""
        return self._thread.run(self._client.indexes(stream, timeout=timeout))

    def search(self, stream: str, index: str, **terms: Any) -> Iterator[Record]:
        """See `AsyncClient.search`."""
        return self._thread.iterate(self._client.search_pages(stream, index, **terms))

    def search_page(self, stream: str, index: str, **terms: Any) -> SearchPage:
        """See `AsyncClient.search_page`."""
        return self._thread.run(self._client.search_page(stream, index, **terms))

    def get(
        self, stream: str, key: bytes | str, *, as_of: int | None = None, **options: Any
    ) -> Record:
        """See `AsyncClient.get`."""
        return self._thread.run(self._client.get(stream, key, as_of=as_of, **options))

    def create_stream(
        self,
        name: str,
        config: Mapping[str, int | str | bool] | None = None,
        *,
        timeout: float | None = None,
    ) -> StreamInfo:
        """See `AsyncClient.create_stream`."""
        return self._thread.run(self._client.create_stream(name, config, timeout=timeout))

    def stream(self, name: str, *, timeout: float | None = None) -> StreamInfo:
        """See `AsyncClient.stream`."""
        return self._thread.run(self._client.stream(name, timeout=timeout))

    def streams(self, *, timeout: float | None = None) -> list[StreamInfo]:
        """See `AsyncClient.streams`."""
        return self._thread.run(self._client.streams(timeout=timeout))

    def alter_stream(
        self,
        name: str,
        config: Mapping[str, int | str | bool],
        *,
        timeout: float | None = None,
    ) -> StreamInfo:
        """See `AsyncClient.alter_stream`."""
        return self._thread.run(self._client.alter_stream(name, config, timeout=timeout))

    def trim(self, stream: str, before: int, *, timeout: float | None = None) -> int:
        """See `AsyncClient.trim`."""
        return self._thread.run(self._client.trim(stream, before, timeout=timeout))

    def delete_stream(self, name: str, *, timeout: float | None = None) -> None:
        """See `AsyncClient.delete_stream`."""
        self._thread.run(self._client.delete_stream(name, timeout=timeout))

    def cluster(self, *, timeout: float | None = None) -> ClusterInfo:
        """See `AsyncClient.cluster`."""
        return self._thread.run(self._client.cluster(timeout=timeout))

    def transfer_leadership(self, node: str | None = None, *, timeout: float | None = None) -> str:
        """See `AsyncClient.transfer_leadership`."""
        return self._thread.run(self._client.transfer_leadership(node, timeout=timeout))

    def add_member(
        self, node: str, raft: str, role: str = "voter", *, timeout: float | None = None
    ) -> NodeInfo:
        """See `AsyncClient.add_member`."""
        return self._thread.run(self._client.add_member(node, raft, role, timeout=timeout))

    def remove_member(self, node: str, *, timeout: float | None = None) -> None:
        """See `AsyncClient.remove_member`."""
        self._thread.run(self._client.remove_member(node, timeout=timeout))


class SyncProducer:
    """A `BatchingProducer` for ordinary code; made by `Client.producer`."""

    def __init__(self, thread: _LoopThread, producer: BatchingProducer) -> None:
        self._thread = thread
        self._producer = producer

    def send(
        self,
        value: Value,
        *,
        key: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timestamp: int | None = None,
    ) -> concurrent.futures.Future[int]:
        """Accept one record and return the future of its offset; wait while the buffer is full."""
        return self._outcome_of(
            lambda: self._producer.send(value, key=key, headers=headers, timestamp=timestamp)
        )

    def send_many(
        self, values: Iterable[Record | bytes | str]
    ) -> concurrent.futures.Future[list[int]]:
        """See `BatchingProducer.send_many`: one change of threads for all values."""
        listed = listed_values(values)  # in this thread: a generator is the caller's code
        return self._outcome_of(lambda: self._producer.send_many(listed))

    def _outcome_of(
        self, send: Callable[[], Awaitable[asyncio.Future[T]]]
    ) -> concurrent.futures.Future[T]:
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

        def settle(sent: asyncio.Future[T]) -> None:
            failure = sent.exception()
            if failure is None:
                outcome.set_result(sent.result())
            else:
                outcome.set_exception(failure)

        async def work() -> None:
            sent = await send()
            outcome.set_running_or_notify_cancel()
            sent.add_done_callback(settle)

        self._thread.run(work())
        return outcome

    def flush(self) -> None:
        """See `BatchingProducer.flush`."""
        self._thread.run(self._producer.flush())

    def close(self) -> None:
        """See `BatchingProducer.close`."""
        self._thread.run(self._producer.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
