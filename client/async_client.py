"""The client for asyncio."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache, partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

from . import wire
from .answers import (
    ClusterInfo,
    NodeInfo,
    Page,
    Receipt,
    StreamInfo,
    cluster_from,
    leader_from,
    log_start_from,
    node_from,
    page_from,
    producer_from,
    receipt_from,
    stream_info_from,
    streams_from,
)
from .arguments import (
    checked_choice,
    checked_compression,
    checked_config,
    checked_count,
    checked_key,
    checked_offset,
    checked_stream,
    checked_timeout,
)
from .batch_format import Packed, pack_rows_aside, row_of
from .caller import Call, Caller
from .conditions import NO_CONDITIONS, Condition, Conditions, packed_condition
from .connection import SessionToken
from .door import DoorAppend
from .endpoints import Endpoints
from .errors import BeyondHighWatermark, Refused, UnknownStream
from .follow import Following
from .group_calls import GroupCalls
from .index_calls import IndexCalls
from .lanes import LanePool, Stamp
from .producer import BATCH_RECORDS_MAX, BatchingProducer, ProducerConfig
from .read_options import ORDERS, ReadOptions
from .record import Record, records_of
from .retry import Attempts, settled
from .tail import OnGap, Tail

DEFAULT_TIMEOUT_S = 30.0
PAGE_RECORDS = 5000
PAGE_BYTES = 4 * 1024 * 1024
BATCHES_FROM_RECORDS = 500
"""Who wants fewer records is better off with these alone than with whole batches."""

Value = Record | bytes | str | None


class AsyncClient(GroupCalls, IndexCalls):
    """One session with a cluster, used on one event loop.

    Reads see what this client wrote or has read before, whichever node answers them. Every call
    is retried at all known nodes until `timeout` (seconds) has passed; a call's own `timeout=`
    takes its place. Whatever is raised derives from Refused (certainly not written) or
    OutcomeUnknown (maybe written); arguments of the wrong type raise TypeError or ValueError
    before anything is sent.
    """

    def __init__(self, urls: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """`urls` are base URLs of nodes; one that can be reached is enough."""
        super().__init__()
        self._timeout = checked_timeout(timeout)
        self._caller = Caller(Endpoints(urls))
        self._lanes = LanePool(self._register)
        self._token = SessionToken()
        self._producers: set[BatchingProducer] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. What an open producer still holds fails with OutcomeUnknown."""
        for producer in list(self._producers):
            await producer.abort()
        await self._caller.close()

    @property
    def session_token(self) -> int:
        """The largest Raft index seen: `after=` for another session that shall see as much."""
        return self._token.index

    # --- appends

    async def produce(
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
        """Append one record, or a list as one atomic batch, exactly once.

        On return it is on disk on a majority. `if_offset` appends only if the stream's next
        offset is this one, `only_if` if a key is Unchanged or an index finds NoMatch: else
        ConditionFailed with `actual`. An `idempotency_key` makes repeats by other processes safe,
        too: they get the first receipt. `compression` (`zstd` or `lz4`) packs the batch before it
        is sent, if that makes it smaller.
        """
        name = checked_stream(stream)
        records = records_of(value, key=key, headers=headers, timestamp=timestamp)
        if if_offset is not None:
            checked_count("if_offset", if_offset)
        conditions = Conditions(if_offset, packed_condition(only_if))
        checked_compression(compression)
        if idempotency_key is not None:
            checked_key(idempotency_key)
        attempts = self._attempts(timeout)
        packed = await _packed(records, compression)
        if idempotency_key is not None:
            return await self._append_with_key(name, packed, idempotency_key, conditions, attempts)

        async def send(stamp: Stamp) -> Receipt:
            return await self._append(name, packed.with_stamp(stamp), attempts, conditions)

        return await self._lanes.append(name, send, attempts, if_offset=conditions.settled_by)

    async def _append_with_key(
        self, stream: str, packed: Packed, key: str, conditions: Conditions, attempts: Attempts
    ) -> Receipt:
        try:
            return await self._append(stream, packed.with_stamp(), attempts, conditions, key)
        except Refused as refusal:
            failure = settled(
                refusal, unanswered=attempts.unanswered, if_offset=conditions.settled_by
            )
            if failure is refusal:
                raise
            raise failure from refusal

    async def _append(
        self,
        stream: str,
        body: bytes,
        attempts: Attempts,
        conditions: Conditions = NO_CONDITIONS,
        key: str | None = None,
    ) -> Receipt:
        call = Call(
            "POST",
            _records_path(stream),
            query={"if_offset": conditions.if_offset, "if": conditions.packed},
            headers={} if key is None else {wire.IDEMPOTENCY_KEY_HEADER: key},
            body=body,
            content_type=wire.BATCHES,
            writes=True,
            tells_timeout=True,
            door=DoorAppend(stream, conditions.if_offset, conditions.packed, key),
        )
        receipt = await self._caller.call(call, attempts, receipt_from)
        self._token.see(receipt.index)
        return receipt

    async def _register(self, deadline: float) -> tuple[int, int]:
        # Registering twice by accident leaves an unused producer, which expires.
        call = Call("POST", wire.path_of("v1", "producers"), body=b"{}")
        return await self._caller.call(call, Attempts(deadline), producer_from)

    def producer(
        self,
        stream: str,
        *,
        linger_ms: float = 5,
        batch_bytes: int = 131072,
        in_flight: int = 5,
        compression: str | None = None,
        buffer_bytes: int = 32 * 1024 * 1024,
        batch_records: int = BATCH_RECORDS_MAX,
        timeout: float | None = None,
    ) -> BatchingProducer:
        """Return a producer that collects records into batches; see `BatchingProducer`."""
        config = ProducerConfig(
            linger_ms=linger_ms,
            batch_bytes=batch_bytes,
            in_flight=in_flight,
            compression=compression,
            buffer_bytes=buffer_bytes,
            batch_records=batch_records,
            timeout_s=self._timeout if timeout is None else checked_timeout(timeout),
        )
        producer = BatchingProducer(
            checked_stream(stream),
            config,
            append=self._append,
            register=self._register,
            on_close=self._producers.discard,
        )
        self._producers.add(producer)
        return producer

    async def idempotency_receipt(
        self, stream: str, idempotency_key: str, *, timeout: float | None = None
    ) -> Receipt:
        """Return the receipt of the append that used the key; UnknownIdempotencyKey if none did."""
        path = wire.path_of(
            "v1", "streams", checked_stream(stream), "idempotency", checked_key(idempotency_key)
        )
        return await self._caller.call(Call("GET", path), self._attempts(timeout), receipt_from)

    # --- reads

    async def read(
        self, stream: str, offset: int | None = None, *, limit: int = 500, **options: Any
    ) -> list[Record]:
        """Return up to `limit` records; an empty list when there is nothing to read yet.

        `offset` None is the oldest kept record, a negative one counts from the end. Further
        options as in `read_page`.
        """
        return (await self.read_page(stream, offset, limit=limit, **options)).records

    async def read_page(
        self,
        stream: str,
        offset: int | None = None,
        *,
        limit: int = 500,
        max_bytes: int | None = None,
        timestamp: int | None = None,
        until: int | None = None,
        key: bytes | str | None = None,
        wait_ms: int = 0,
        consistency: str = "local",
        max_lag_ms: int | None = None,
        after: int | None = None,
        order: str = "asc",
        timeout: float | None = None,
    ) -> Page:
        """Return records together with where to read on and how far the stream reaches.

        `timestamp` (ms) begins at the first record at or after it. `until` is exclusive. `order`
        "desc" turns the range around: the records of [until, offset), the newest first.
        `wait_ms` waits for the first record. `consistency` is local, bounded (with `max_lag_ms`)
        or linearizable. `after` is a session token, by default this session's own. Raises
        OffsetTrimmed, BeyondHighWatermark, UnknownStream, or Unavailable.
        """
        options = ReadOptions(
            offset=offset,
            limit=limit,
            max_bytes=max_bytes,
            timestamp=timestamp,
            until=until,
            key=key,
            wait_ms=wait_ms,
            consistency=consistency,
            max_lag_ms=max_lag_ms,
            after=self._token.index or None if after is None else after,
            order=order,
        )
        return await self._page(stream, options, timeout, is_exact=True)

    async def _page(
        self, stream: str, options: ReadOptions, timeout: float | None, *, is_exact: bool
    ) -> Page:
        """Read one page; unless `is_exact`, it may go beyond its limit, to the end of a batch."""
        as_batches = options.takes_batches and options.limit >= BATCHES_FROM_RECORDS
        call = Call(
            "GET",
            wire.path_of("v1", "streams", checked_stream(stream), "records"),
            query=options.query(),
            headers={"Accept": f"{wire.BATCHES}, {wire.MSGPACK};q=0.9"} if as_batches else {},
            wait_s=options.wait_ms / 1000,
        )
        attempts = self._attempts(timeout, options.wait_ms / 1000)
        limit = options.limit if is_exact else None
        decode = partial(page_from, stream=stream, limit=limit, bytes_max=options.max_bytes)
        page = await self._caller.call(call, attempts, decode)
        self._token.see(page.index)
        return page

    async def read_pages(
        self,
        stream: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        page_records: int = PAGE_RECORDS,
        page_bytes: int = PAGE_BYTES,
        timestamp: int | None = None,
        key: bytes | str | None = None,
        consistency: str = "local",
        order: str = "asc",
        timeout: float | None = None,
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of `[start, stop)`, of about `page_records` each.

        Without `stop` up to the high watermark as the first page tells it. With `order` "desc" the
        newest records come first.
        """
        if start is not None:
            checked_offset("start", start)
        if stop is not None:
            checked_count("stop", stop)
        if order == "desc":
            if timestamp is not None:
                start = await self.offset_at(stream, timestamp, timeout=timeout)
            options = ReadOptions(
                limit=page_records, max_bytes=page_bytes, key=key, consistency=consistency
            )
            async with aclosing(
                self._pages_down(stream, start or 0, stop, options, timeout)
            ) as pages:
                async for page in pages:
                    yield page
            return
        checked_choice("order", order, ORDERS)
        offset = start
        while stop is None or offset is None or offset < stop:
            options = ReadOptions(
                offset=offset,
                limit=page_records,
                max_bytes=page_bytes,
                timestamp=timestamp,
                until=stop,
                key=key,
                consistency=consistency,
                after=self._token.index or None,
            )
            page = await self._page(stream, options, timeout, is_exact=False)
            stop = page.high_watermark if stop is None else min(stop, page.high_watermark)
            # Without what has been committed since the end was looked up.
            yield _cut(page, 0, stop)
            if page.next_offset >= stop or (not page.records and page.next_offset == offset):
                return
            offset, timestamp = page.next_offset, None

    async def _pages_down(
        self,
        stream: str,
        start: int,
        stop: int | None,
        options: ReadOptions,
        timeout: float | None,
    ) -> AsyncGenerator[Page, None]:
        """Yield the pages of [start, stop), the newest first; a negative start is from the end."""
        offset = stop
        while True:
            wanted = replace(
                options,
                offset=offset,
                until=start if start >= 0 else None,
                after=self._token.index or None,
                order="desc",
            )
            try:
                page = await self._page(stream, wanted, timeout, is_exact=True)
            except BeyondHighWatermark as beyond:
                if offset is None or offset <= beyond.high_watermark:
                    raise
                offset = beyond.high_watermark
                continue
            if start < 0:
                start = max(0, page.high_watermark + start)
            yield _cut(page, start, page.high_watermark)
            low = max(start, page.log_start_offset)
            if page.next_offset <= low or page.next_offset == offset:
                return
            offset = page.next_offset

    async def read_iter(
        self, stream: str, start: int | None = None, stop: int | None = None, **options: Any
    ) -> AsyncGenerator[Record, None]:
        """Yield the records of `[start, stop)` page by page; options as in `read_pages`."""
        async with aclosing(self.read_pages(stream, start, stop, **options)) as pages:
            async for page in pages:
                for record in page.records:
                    yield record

    async def offset_at(self, stream: str, timestamp: int, *, timeout: float | None = None) -> int:
        """Return the offset of the first record at or after `timestamp` (ms), else the end."""
        page = await self.read_page(stream, timestamp=timestamp, limit=1, timeout=timeout)
        found = page.records[0].offset if page.records else None
        return page.high_watermark if found is None else found

    async def tail(
        self,
        stream: str,
        start: int | None = None,
        *,
        key: bytes | str | None = None,
        on_gap: OnGap = "raise",
    ) -> AsyncGenerator[Record, None]:
        """Yield records from `start` on, for ever; goes on at other nodes when one fails.

        `start` None is the oldest kept record, a negative one counts from the end. Raises Gap
        when records were removed before they were reached, unless `on_gap` is "skip".
        """
        async with aclosing(self.tail_pages(stream, start, key=key, on_gap=on_gap)) as pages:
            async for page in pages:
                for record in page.records:
                    yield record

    def tail_pages(
        self,
        stream: str,
        start: int | None = None,
        *,
        key: bytes | str | None = None,
        on_gap: OnGap = "raise",
    ) -> AsyncGenerator[Page, None]:
        """Yield what `tail` yields, as it arrives: pages with at least one record each."""
        if start is not None:
            checked_offset("start", start)
        following = Following(self._caller, self._token, self._tail_page)

        def leave_node() -> None:
            following.close()
            self._caller.leave_node()

        name = checked_stream(stream)
        return _until_closed(
            Tail(following, leave_node, name, start, key=key, on_gap=on_gap), following
        )

    async def _tail_page(
        self,
        stream: str,
        offset: int | None = None,
        *,
        limit: int,
        key: bytes | str | None,
        wait_ms: int,
    ) -> Page:
        after = self._token.index or None
        options = ReadOptions(offset=offset, limit=limit, key=key, wait_ms=wait_ms, after=after)
        return await self._page(stream, options, None, is_exact=False)

    # --- streams and the cluster

    async def create_stream(
        self,
        name: str,
        config: Mapping[str, int | str | bool] | None = None,
        *,
        timeout: float | None = None,
    ) -> StreamInfo:
        """Create a stream; fine if it exists with this configuration, else StreamExists."""
        body = json.dumps({"config": checked_config(config or {})}).encode()
        call = Call("PUT", _stream_path(name), body=body, writes=True)
        return await self._caller.call(call, self._attempts(timeout), stream_info_from)

    async def stream(self, name: str, *, timeout: float | None = None) -> StreamInfo:
        """Raises UnknownStream."""
        call = Call("GET", _stream_path(name))
        return await self._caller.call(call, self._attempts(timeout), stream_info_from)

    async def streams(self, *, timeout: float | None = None) -> list[StreamInfo]:
        call = Call("GET", wire.path_of("v1", "streams"))
        return await self._caller.call(call, self._attempts(timeout), streams_from)

    async def alter_stream(
        self,
        name: str,
        config: Mapping[str, int | str | bool],
        *,
        timeout: float | None = None,
    ) -> StreamInfo:
        """Change the settings in `config`; the others stay. Raises UnknownStream."""
        body = json.dumps({"config": checked_config(config)}).encode()
        call = Call("PATCH", _stream_path(name), body=body, writes=True)
        return await self._caller.call(call, self._attempts(timeout), stream_info_from)

    async def trim(self, stream: str, before: int, *, timeout: float | None = None) -> int:
        """Remove the records below `before`, for ever; return the log start offset.

        That is larger if more was removed already. Raises UnknownStream, BeyondHighWatermark.
        """
        body = json.dumps({"before": checked_count("before", before)}).encode()
        path = wire.path_of("v1", "streams", checked_stream(stream), "trim")
        call = Call("POST", path, body=body, writes=True)
        return await self._caller.call(call, self._attempts(timeout), log_start_from)

    async def delete_stream(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a stream with all its records. Raises UnknownStream."""
        attempts = self._attempts(timeout)
        try:
            call = Call("DELETE", _stream_path(name), writes=True)
            await self._caller.call(call, attempts, lambda body: None)
        except UnknownStream:
            # The repeat of a deletion that was carried out finds nothing any more.
            if not attempts.unanswered:
                raise

    async def cluster(self, *, timeout: float | None = None) -> ClusterInfo:
        """Return members, leader and progress as one node sees them; the leader if it is known."""
        call = Call("GET", wire.path_of("v1", "cluster"), leader_first=True)
        info = await self._caller.call(call, self._attempts(timeout), cluster_from)
        self._caller.learn(info)
        return info

    async def transfer_leadership(
        self, node: str | None = None, *, timeout: float | None = None
    ) -> str:
        """Hand leadership to `node`, or to whoever is best; return the new leader's id."""
        body = json.dumps({} if node is None else {"node": node}).encode()
        call = Call(
            "POST",
            wire.path_of("v1", "cluster", "leader"),
            body=body,
            writes=True,
            repeatable=node is not None,
        )
        return await self._caller.call(call, self._attempts(timeout), leader_from)

    async def add_member(
        self, node: str, raft: str, role: str = "voter", *, timeout: float | None = None
    ) -> NodeInfo:
        """Have `node`, whose Raft address is `raft`, take part as `voter` or `learner`.

        Returns once it does: a voter has to catch up first. The same call moves a node to another
        address, and promotes or demotes it. Raises MembershipConflict; OutcomeUnknown if it goes
        on by itself.
        """
        body = json.dumps({"id": node, "raft": raft, "role": role}).encode()
        path = wire.path_of("v1", "cluster", "members")
        call = Call("POST", path, body=body, writes=True, tells_timeout=True)
        return await self._caller.call(call, self._attempts(timeout), node_from)

    async def remove_member(self, node: str, *, timeout: float | None = None) -> None:
        """Take `node` out of the cluster; the leader hands leadership over first."""
        attempts = self._attempts(timeout)
        path = wire.path_of("v1", "cluster", "members", node)
        call = Call("DELETE", path, writes=True, tells_timeout=True)
        try:
            await self._caller.call(call, attempts, lambda body: None)
        except Refused as error:
            # As with streams: the repeat of a removal that was carried out finds nothing.
            if error.code != "not_found" or not attempts.unanswered:
                raise

    def _attempts(self, timeout: float | None, extra_s: float = 0.0) -> Attempts:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        return Attempts(monotonic() + seconds + extra_s)


async def _until_closed(tail: Tail, following: Following) -> AsyncGenerator[Page, None]:
    """Yield the tail's pages; the node is told when nobody wants more."""
    try:
        async with aclosing(tail.pages()) as pages:
            async for page in pages:
                yield page
    finally:
        following.close()


async def _packed(records: Sequence[Record], compression: str | None) -> Packed:
    return await pack_rows_aside([row_of(record) for record in records], compression)


def _cut(page: Page, start: int, stop: int) -> Page:
    """Return `page` without what is not of [start, stop)."""
    ends = [record.offset or 0 for record in (*page.records[:1], *page.records[-1:])]
    if all(start <= offset < stop for offset in ends):
        return page
    kept = [record for record in page.records if start <= (record.offset or 0) < stop]
    return replace(page, records=kept)


@lru_cache(maxsize=1024)
def _records_path(stream: str) -> str:
    return wire.path_of("v1", "streams", stream, "records")


def _stream_path(name: str) -> str:
    return wire.path_of("v1", "streams", checked_stream(name))
