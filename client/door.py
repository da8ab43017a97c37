"""Appends through the nodes' fast doors (`frames`): one connection per node, many in flight.

A transport below retries and exactly-once logic, as `connection` is: it tells what was certainly
not sent (NotSent) from what may have been carried out (NoAnswer). A node that has no door, an older
one or one behind a proxy, is left to HTTP for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

import msgspec

from . import frames, wire
from .answers import Receipt
from .connection import CONNECT_TIMEOUT_S, NoAnswer, NotSent
from .errors import CuteError
from .frames import AppendHead, Hello, MalformedFrame, PageHead, ProblemAnswer, ReceiptAnswer

_log = logging.getLogger(__name__)

REFUSED_S = 60.0
"""A node that answered otherwise than with frames is not asked for them for so long."""
SILENT_S = 5.0
"""As much for one that answered nothing."""
IDLE_S = 300.0
"""A connection that was not used for so long is not used again: the node may be closing it."""
CREDIT_BYTES = 1024 * 1024
"""Bytes of pages that may be under way to one reader."""
SILENCE_S = 0.5
"""A connection on which an append waited so long, and nothing at all came, is given up."""
_GATHERED_BYTES_MAX = 64 * 1024

_hello_decoder = msgspec.msgpack.Decoder(Hello)
_receipt_decoder = msgspec.msgpack.Decoder(ReceiptAnswer)
_problem_decoder = msgspec.msgpack.Decoder(ProblemAnswer)


@dataclass(frozen=True, slots=True)
class DoorAppend:
    """An append as the door takes it, but for its timeout."""

    stream: str
    if_offset: int | None = None
    condition: str | None = None
    idempotency_key: str | None = None

    def head(self, timeout_ms: int) -> bytes:
        if self.if_offset is None and self.condition is None and self.idempotency_key is None:
            return frames.packed_head(AppendHead(self.stream, timeout_ms))
        unset = msgspec.UNSET
        head = AppendHead(
            self.stream,
            timeout_ms,
            unset if self.if_offset is None else self.if_offset,
            unset if self.condition is None else self.condition,
            unset if self.idempotency_key is None else self.idempotency_key,
        )
        return frames.packed_head(head)


@dataclass(frozen=True, slots=True)
class DoorAnswer:
    """What a node answered to an append: as `connection.Answer`."""

    node: str
    answer: ReceiptAnswer | ProblemAnswer

    @property
    def leader(self) -> str | None:
        return self.answer.leader

    @property
    def term(self) -> int:
        return self.answer.term

    def failure(self) -> CuteError | None:
        """Return the failure that it tells, None for a receipt."""
        return None if isinstance(self.answer, ReceiptAnswer) else failure_in(self.answer)

    def shape(self) -> Receipt:
        """Return the receipt, if it is one."""
        assert isinstance(self.answer, ReceiptAnswer)
        body = self.answer.receipt
        return Receipt(
            body.stream,
            body.first_offset,
            body.last_offset,
            body.count,
            body.timestamp,
            body.term,
            body.index,
            body.duplicate,
            body.durability,
        )


class Doors:
    """The door connections to all nodes; used on one event loop."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}
        self._opening: dict[str, asyncio.Task[Door | None]] = {}
        self._shut_until: dict[str, float] = {}
        self._is_closed = False

    async def append(
        self, node: str, append: DoorAppend, batch: bytes, *, timeout_s: float, timeout_ms: int
    ) -> DoorAnswer | None:
        """Send one append to `node` and return its answer; None if it has no door.

        The node is told to take `timeout_ms` at most. Raises NotSent or NoAnswer.
        """
        door = self._doors.get(node)
        if door is None or not door.is_usable(monotonic()):
            began = monotonic()
            door = await self.opened(node, timeout_s)
            timeout_s -= monotonic() - began
            if door is None:
                return None
        return DoorAnswer(node, await door.append(append.head(timeout_ms), batch, timeout_s))

    async def opened(self, node: str, timeout_s: float) -> Door | None:
        """Return the open door of `node`; None if it has none. Raises NotSent."""
        if self._is_closed:
            raise RuntimeError("the client is closed")
        door = self._doors.get(node)
        if door is not None and door.is_usable(monotonic()):
            return door
        if monotonic() < self._shut_until.get(node, 0.0):
            return None
        opening = self._opening.get(node)
        if opening is None:
            opening = self._opening[node] = asyncio.create_task(self._open(node))
            opening.add_done_callback(partial(self._end_opening, node))
        done, _ = await asyncio.wait({opening}, timeout=timeout_s)
        if not done or opening.cancelled():
            raise NotSent("no connection in time")
        return opening.result()

    def _end_opening(self, node: str, opening: asyncio.Task[Door | None]) -> None:
        del self._opening[node]
        if not opening.cancelled():
            opening.exception()  # who asked may not have waited for it

    async def _open(self, node: str) -> Door | None:
        """Connect and wait for the node's greeting. Raises NotSent."""
        address = _address_of(node)
        if address is None:
            self._shut_until[node] = float("inf")
            return None
        loop = asyncio.get_running_loop()
        door: Door | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, door = await loop.create_connection(Door, *address)
                await door.hello
        except NoDoor as error:
            _log.debug("no door", extra={"node": node, "error": str(error)})
            self._shut_until[node] = monotonic() + error.for_s
            return None
        except TimeoutError as error:
            self._shut_until[node] = monotonic() + SILENT_S
            raise NotSent("no connection in time") from error
        except OSError as error:
            raise NotSent(str(error)) from error
        finally:
            if door is not None and not door.is_usable(monotonic()):
                await door.close()
        if node in self._doors:
            self._doors[node].abort()
        self._doors[node] = door
        return door

    def doubt(self, node: str, since: float) -> None:
        """Give the connection up if nothing has come since a while ago: another may find a way."""
        door = self._doors.get(node)
        if door is not None and monotonic() - since >= SILENCE_S:
            door.abort_if_silent(since)

    async def close(self) -> None:
        self._is_closed = True
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        await asyncio.gather(*(door.close() for door in self._doors.values()))


def _address_of(node: str) -> tuple[str, int] | None:
    """Return where the door of a node at this base URL is; None for TLS, and behind a path."""
    parts = urlsplit(node)
    if parts.scheme != "http" or parts.path or parts.hostname is None:
        return None
    return parts.hostname, parts.port or 80


class NoDoor(Exception):
    """Nobody speaks frames there; worth another try after `for_s`."""

    def __init__(self, detail: str, for_s: float) -> None:
        super().__init__(detail)
        self.for_s = for_s


class Door(asyncio.Protocol):
    """One connection. Usable once `hello` is done, until it is lost."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[Hello] = loop.create_future()
        self._closed = asyncio.Event()
        self._loop = loop
        self._transport: asyncio.Transport
        self._partial: list[bytes] = []
        self._missing_bytes = 0
        """Until the frame that has begun to come is whole, at least."""
        self._waiting: dict[int, asyncio.Future[ReceiptAnswer | ProblemAnswer]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._last_id = 0
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._writable: asyncio.Future[None] | None = None
        """While the connection takes no more."""
        self._is_greeted = False
        self._is_lost = False
        self._used_at = monotonic()
        self._heard_at = self._used_at

    def is_usable(self, now: float) -> bool:
        is_open = self._is_greeted and not self._is_lost
        is_in_use = bool(self._waiting or self._subscriptions)
        return is_open and (is_in_use or now - self._used_at < IDLE_S)

    def abort(self) -> None:
        self._is_lost = True
        self._transport.abort()

    def abort_if_silent(self, since: float) -> None:
        if self._heard_at < since:
            self.abort()

    async def close(self) -> None:
        self.abort()
        await self._closed.wait()

    # ---- asking

    async def append(
        self, head: bytes, batch: bytes, timeout_s: float
    ) -> ReceiptAnswer | ProblemAnswer:
        """Raises NotSent or NoAnswer."""
        began = monotonic()
        if self._writable is not None:
            await self._until_writable(timeout_s)
        if self._is_lost:
            raise NotSent("the connection was lost")
        self._used_at = began
        request_id = self._last_id = self._last_id % 0xFFFF_FFFF + 1
        answer: asyncio.Future[ReceiptAnswer | ProblemAnswer] = self._loop.create_future()
        self._send(frames.append_frame(request_id, head, batch))
        self._waiting[request_id] = answer
        timer = self._loop.call_later(timeout_s, self._late, request_id, began, timeout_s)
        try:
            return await answer
        finally:
            timer.cancel()
            self._waiting.pop(request_id, None)

    async def _until_writable(self, timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        while self._writable is not None:
            await asyncio.wait({self._writable}, timeout=max(0.0, deadline - monotonic()))
            if monotonic() >= deadline:
                raise NotSent("the connection took nothing more in time")

    def follow(self, node: str, stream: str, offset: int | None, after: int | None) -> Subscription:
        """Raises NotSent."""
        if self._is_lost:
            raise NotSent("the connection was lost")
        request_id = self._last_id = self._last_id % 0xFFFF_FFFF + 1
        unset = msgspec.UNSET
        head = frames.FollowHead(
            stream,
            CREDIT_BYTES,
            unset if offset is None else offset,
            unset if after is None else after,
        )
        subscription = self._subscriptions[request_id] = Subscription(self, node, request_id)
        self.tell(frames.follow_frame(request_id, head))
        return subscription

    def tell(self, frame: bytes) -> None:
        """Send what has no answer of its own; these are few and small."""
        if not self._is_lost:
            self._used_at = monotonic()
            self._transport.write(frame)

    def unfollow(self, request_id: int) -> None:
        if self._subscriptions.pop(request_id, None) is not None:
            self.tell(frames.unfollow_frame(request_id))

    def _send(self, frame: bytes) -> None:
        """Write at once if nothing else is under way, or enough; else with what comes soon."""
        if not self._outgoing and self._waiting:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame)
        if not self._waiting or self._outgoing_bytes >= _GATHERED_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        outgoing, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        if outgoing and not self._is_lost:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def _late(self, request_id: int, began: float, timeout_s: float) -> None:
        answer = self._waiting.get(request_id)
        if answer is not None and not answer.done():
            answer.set_exception(NoAnswer(f"no answer within {timeout_s:.1f} s"))
        if timeout_s >= SILENCE_S:
            self.abort_if_silent(began)

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(frames.PREAMBLE)

    def data_received(self, data: bytes) -> None:
        self._heard_at = monotonic()
        self._partial.append(data)
        self._missing_bytes -= len(data)
        if self._missing_bytes > 0:
            return
        try:
            whole, rest = frames.frames_in(b"".join(self._partial))
            self._partial, self._missing_bytes = [rest], frames.missing_bytes(rest)
            for frame in whole:
                self._take(frame)
        except (MalformedFrame, msgspec.MsgspecError) as error:
            if not self.hello.done():
                self.hello.set_exception(NoDoor(f"no frames: {error}", REFUSED_S))
            self.abort()

    def _take(self, frame: frames.Frame) -> None:
        kind, payload = frame.kind, frame.payload
        subscription = self._subscriptions.get(frame.request_id)
        if subscription is not None and kind in (frames.PAGE, frames.PROBLEM):
            subscription.take(frame)
        elif kind == frames.PAGE:
            pass  # it was on its way when the reader left
        elif kind == frames.RECEIPT or (kind == frames.PROBLEM and frame.request_id):
            decoder = _receipt_decoder if kind == frames.RECEIPT else _problem_decoder
            answer = self._waiting.get(frame.request_id)
            if answer is not None and not answer.done():
                answer.set_result(decoder.decode(payload))
        elif kind == frames.HELLO and not self.hello.done():
            self.hello.set_result(_hello_decoder.decode(payload))
            self._is_greeted = True
        elif kind == frames.PROBLEM:
            detail = str(_problem_decoder.decode(payload).problem.get("detail"))
            if not self.hello.done():
                self.hello.set_exception(NoDoor(detail, SILENT_S))
            _log.debug("the node closes the door", extra={"detail": detail})
            self.abort()
        else:
            raise MalformedFrame(f"kind {kind} is not expected here")

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        reason = str(exc or "") or "the connection was closed"
        if not self.hello.done():
            self.hello.set_exception(NoDoor(reason, SILENT_S))
        if not self.hello.cancelled():
            self.hello.exception()  # who opened it may not have waited for it
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NoAnswer(reason))
        for subscription in self._subscriptions.values():
            subscription.lost(reason)
        self._subscriptions.clear()
        self.resume_writing()
        self._closed.set()


class Subscription:
    """The pages of one FOLLOW, in order."""

    def __init__(self, door: Door, node: str, request_id: int) -> None:
        self.node = node
        self._door = door
        self._request_id = request_id
        self._pages: deque[bytes] = deque()
        self._taken_bytes = 0
        """Taken since credit was given last."""
        self._end: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def page(self, patience_s: float) -> tuple[PageHead, bytes]:
        """Return the next page's head and batches; empty ones tell that the node is alive.

        Raises NoAnswer when the connection is lost or nothing comes in time, the refusal that ends
        the subscription, MalformedFrame.
        """
        if not self._pages:
            await self._wait(patience_s)
        if not self._pages:
            assert self._end is not None
            raise self._end
        payload = self._pages.popleft()
        self._taken_bytes += len(payload)
        if self._taken_bytes >= CREDIT_BYTES // 2:
            self._door.tell(frames.credit_frame(self._request_id, self._taken_bytes))
            self._taken_bytes = 0
        return frames.page_parts(payload)

    async def _wait(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not self._pages and self._end is None:
            self._waiter = loop.create_future()
            timer = loop.call_at(deadline, self.lost, f"no page within {patience_s:.1f} s")
            try:
                await self._waiter
            finally:
                timer.cancel()

    def take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.PAGE:
            self._pages.append(frame.payload)
        else:
            self._end = failure_in(_problem_decoder.decode(frame.payload))
        self._wake()

    def lost(self, reason: str) -> None:
        self._end = self._end or NoAnswer(reason)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        self._door.unfollow(self._request_id)


def failure_in(answer: ProblemAnswer) -> CuteError:
    """Return the failure that a node tells."""
    status, retry_after_s = answer.problem.get("status"), answer.retry_after_s
    return wire.failure_of(
        status if isinstance(status, int) else 500,
        answer.problem,
        None if retry_after_s is None else float(retry_after_s),
    )
