"""Reads that stay open: records as they are committed, as server-sent events or lines of JSON.

    record      {offset, timestamp, key, value, headers}; a server-sent event's `id` is the offset
    gap         {from, to, reason}: records of [from, to) that are gone; the stream goes on at `to`
    heartbeat   {high_watermark, scanned_to}: at the beginning, and while no record comes
    error       a problem; the last event

What fails before the first byte is an ordinary problem. After that every record of the range is
sent or lies in a gap, in order, until the stream ends: at `until` or `limit`, by an error, because
the client goes or takes nothing any more, or because the node stops. Whoever wants more then asks
again behind the last offset it has.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from ...replication.errors import (
    BeyondHighWatermark,
    OffsetTrimmed,
    ReplicationError,
    UnknownStream,
)
from ...replication.types import StreamInfo
from ...storage.record import StoredRecord
from ..units import KiB
from .answers import accepted, delivering
from .bodies import BATCHES, JSON, MSGPACK
from .context import REQUEST_ID, context_of
from .levels import before_refusing, reach_level, with_stream
from .pages import Page, end_offset, first_offset, json_fields, read_page
from .problems import Problem, describe, invalid, problem_of
from .queries import INTEGER_MAX, ReadQuery

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 5.0
"""Longest time without an event."""
_PAGE_BYTES: Final = 256 * KiB
"""Looked at and held at a time, for each stream."""
_PIECE_BYTES: Final = 64 * KiB
_BUSY_S: Final = 0.1
"""With too many answers under way, look again so much later."""
_EVENT_ID: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

_to_json = msgspec.json.Encoder().encode


def as_event(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Return a server-sent event. JSON has no line breaks: one data line is enough."""
    name = f"id: {fields['offset']}\nevent: {kind}" if kind == "record" else f"event: {kind}"
    return b"%b\ndata: %b\n\n" % (name.encode(), _to_json(fields))


def as_line(kind: str, fields: Mapping[str, Any]) -> bytes:
    return _to_json({"event": kind, **fields}) + b"\n"


FORMS: Final[Mapping[str, Callable[[str, Mapping[str, Any]], bytes]]] = {
    "text/event-stream": as_event,
    "application/x-ndjson": as_line,
}


def stream_type(request: web.Request) -> str | None:
    """Return the media type of the stream that `Accept` prefers to a page; None if to none."""
    weights = accepted(request.headers.get("Accept", ""))
    best = max(FORMS, key=lambda media_type: weights.get(media_type, 0))
    page = max(weights.get(each, 0) for each in (JSON, MSGPACK, BATCHES))
    return best if weights.get(best, 0) > page else None


async def follow_records(
    request: web.Request, name: str, query: ReadQuery, media_type: str
) -> web.StreamResponse:
    """Answer with a stream of events; `wait_ms` means nothing to it.

    The read level holds at the beginning. Raises what is refused before the first byte;
    ConnectionResetError if the client does not receive what is sent.
    """
    await reach_level(request, query)
    start = await _start(request, name, query)
    stream = EventStream(request, name, query, media_type, start)
    try:
        with context_of(request).waiting(request):
            await stream.run()
    except Exception as error:
        if not stream.response.prepared or isinstance(error, ConnectionError):
            raise
        await stream.fail(error)
    async with delivering(request):
        await stream.response.write_eof()
    return stream.response


async def _start(request: web.Request, name: str, query: ReadQuery) -> int:
    context = context_of(request)
    info = await with_stream(context, name)
    start = _resumed(request)
    if start is None:
        start = await first_offset(context, query, info)
    if start > info.high_watermark:
        await before_refusing(context)
        info = context.live_replica().stream(name)
    if start > info.high_watermark:
        raise BeyondHighWatermark(
            f"offset {start} does not exist yet",
            log_start_offset=info.log_start_offset,
            high_watermark=info.high_watermark,
        )
    return start


def _resumed(request: web.Request) -> int | None:
    """Return the offset behind the last one the client has; None if it does not say."""
    given = request.headers.get("Last-Event-ID")
    if given is None:
        return None
    if not _EVENT_ID.fullmatch(given):
        raise invalid("Last-Event-ID", "wanted the offset of a record")
    return int(given) + 1


class EventStream:
    """One open read: `run` until it ends, `fail` if that was an error."""

    def __init__(
        self, request: web.Request, name: str, query: ReadQuery, media_type: str, start: int
    ) -> None:
        self.response = web.StreamResponse(
            headers={"Content-Type": media_type, "Cache-Control": "no-store"}
        )
        self._request = request
        self._context = context_of(request)
        self._name = name
        self._query = query
        self._encode = FORMS[media_type]
        self._offset = start
        """Everything before it was sent, did not match, or is gone."""
        self._end = end_offset(query)
        self._records_left = query.limit if "limit" in request.query else INTEGER_MAX
        self._stream_id: int | None = None
        self._beat_at = 0.0

    async def run(self) -> None:
        async with delivering(self._request):
            await self.response.prepare(self._request)
        await self._beat()
        while self._offset < self._end and self._records_left > 0:
            page = await self._look()
            if page is not None:
                try:
                    await self._send(page)
                finally:
                    self._context.answers.give_back(page.held_bytes)
            if _now() >= self._beat_at:
                await self._beat()
            await asyncio.sleep(0)

    async def fail(self, error: Exception) -> None:
        """Tell the client why the stream ends; that the node stops needs no words."""
        problem = problem_of(error, writes=False)
        request_id = self._request[REQUEST_ID]
        if not isinstance(error, Problem | ReplicationError):
            logger.exception("request failed", extra={"request_id": request_id})
        if problem.code != "shutting_down":
            await self._write(self._encode("error", describe(problem, request_id)))

    async def _look(self) -> Page | None:
        """Return the next page, waiting for it until a heartbeat is due; None if it has to be
        asked for again.
        """
        wanted = msgspec.structs.replace(
            self._query, limit=self._records_left, max_bytes=INTEGER_MAX
        )
        bytes_max = min(self._query.max_bytes, _PAGE_BYTES)
        wait_ms = max(0, math.ceil((self._beat_at - _now()) * 1000))
        try:
            return await read_page(
                self._context,
                self._name,
                wanted,
                self._offset,
                bytes_max=bytes_max,
                wait_ms=wait_ms,
            )
        except OffsetTrimmed:
            await self._skip_to(min(self._info().log_start_offset, self._end))
        except BeyondHighWatermark:
            raise self._deleted() from None
        except Problem as problem:
            if problem.code != "throttled":
                raise
            await asyncio.sleep(_BUSY_S)
        return None

    async def _send(self, page: Page) -> None:
        stream_id = page.result.stream_id
        if self._stream_id not in (None, stream_id):
            raise self._deleted()
        self._stream_id = stream_id
        await self._send_records(page.records)
        self._offset = page.next_offset
        self._records_left -= len(page.records)

    async def _send_records(self, records: list[StoredRecord]) -> None:
        piece = bytearray()
        for record in records:
            piece += self._encode("record", json_fields(record))
            if len(piece) >= _PIECE_BYTES:
                await self._write(bytes(piece))
                piece.clear()
        if piece:
            await self._write(bytes(piece))

    async def _skip_to(self, offset: int) -> None:
        fields = {"from": self._offset, "to": offset, "reason": "trim"}
        await self._write(self._encode("gap", fields))
        self._offset = offset

    async def _beat(self) -> None:
        fields = {"high_watermark": self._info().high_watermark, "scanned_to": self._offset}
        await self._write(self._encode("heartbeat", fields))

    async def _write(self, events: bytes) -> None:
        async with delivering(self._request):
            await self.response.write(events)
        self._beat_at = _now() + HEARTBEAT_S
        await asyncio.sleep(0)

    def _info(self) -> StreamInfo:
        return self._context.live_replica().stream(self._name)

    def _deleted(self) -> UnknownStream:
        """The name means another stream now, with offsets of its own."""
        return UnknownStream(f"stream {self._name} was deleted", stream=self._name)


def _now() -> float:
    return asyncio.get_running_loop().time()
