"""Followers: clients to whom stored batches are pushed as they are committed.

    FOLLOW ──> catching up, a task of its own ──> live, fed with all others of its stream
                    ^        until the high watermark         │
                    └──────── no credit, or choked ───────────┘

A stream's feed is one task, however many follow: it waits once, reads once, and the same bytes go
to all. The more there are, the longer it lets records gather before its next round. A follower that
takes no more than it is given leaves the feed and reads for itself until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from ...replication.errors import ReplicationError, UnknownStream
from ..http.context import Context
from ..http.levels import LEVEL_TIMEOUT_S, with_stream
from ..http.pages import Page, first_offset, read_page
from ..http.problems import Problem, problem_of
from ..http.queries import INTEGER_MAX, ReadQuery
from ..units import KiB
from . import frames
from .answers import page_payload, problem_frame
from .frames import FollowHead

if TYPE_CHECKING:
    from .door import Door

logger = logging.getLogger(__name__)

ROUTE: Final = ("door", "FOLLOW")
PAGE_BYTES: Final = 256 * KiB
"""Looked at and sent at a time."""
BEAT_S: Final = 2.5
"""Longest time without a page, were it an empty one."""
PAUSE_S_EACH: Final = 0.0003
"""Between two rounds of a feed, for each follower."""
PAUSE_S_MAX: Final = 0.01
_PAUSE_S_MIN: Final = 0.001
_EVERYTHING: Final = ReadQuery(limit=INTEGER_MAX, max_bytes=INTEGER_MAX)


class Feeds:
    """All followers of one node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._feeds: dict[str, _Feed] = {}
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._followers)

    def follow(self, door: Door, request_id: int, head: FollowHead) -> Follower:
        """Raises Problem `throttled` if too many reads are open."""
        self.context.check_stopping()
        is_open = len(self._followers) + len(self.context.polls)
        if is_open >= self.context.config.polls_max:
            raise Problem("throttled", f"{is_open} reads are waiting already")
        follower = Follower(self, door, request_id, head)
        self._followers.add(follower)
        return follower

    def join(self, follower: Follower) -> bool:
        """Feed a follower that has caught up; False if its stream's feed is ahead of it."""
        feed = self._feeds.get(follower.stream)
        if feed is None:
            self._feeds[follower.stream] = _Feed(self, follower)
            return True
        return feed.join(follower)

    def leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        feed = self._feeds.get(follower.stream)
        if feed is not None and feed.leave(follower):
            del self._feeds[follower.stream]

    def ended(self, feed: _Feed) -> None:
        if self._feeds.get(feed.stream) is feed:
            del self._feeds[feed.stream]

    def stop(self) -> None:
        """The node stops: its followers go on elsewhere."""
        for follower in list(self._followers):
            follower.fail(Problem("shutting_down", "this node is stopping; ask another one"))


class Follower:
    """One FOLLOW of a connection, until it fails or ends."""

    def __init__(self, feeds: Feeds, door: Door, request_id: int, head: FollowHead) -> None:
        self.stream = head.stream
        self.offset = 0
        """Everything before it was sent."""
        self.stream_id = 0
        self._head = head
        self._feeds = feeds
        self._door = door
        self._request_id = request_id
        self._credit = head.credit
        self._room = asyncio.Event()
        self._is_over = False
        self._task = asyncio.get_running_loop().create_task(self._begin())

    @property
    def has_room(self) -> bool:
        return self._credit > 0 and not self._door.is_choked

    def allow(self, credit: int) -> None:
        self._credit = min(self._credit + credit, frames.CREDIT_MAX)
        self.look_for_room()

    def look_for_room(self) -> None:
        if self.has_room:
            self._room.set()

    def send(self, payload: bytes, end: int) -> None:
        self._credit -= len(payload)
        self.offset = end
        self._door.push(frames.raw_frame(frames.PAGE, self._request_id, payload))

    def fall_behind(self) -> None:
        """Leave the feed, and read alone once there is room."""
        self._task = asyncio.get_running_loop().create_task(self._guarded_catching_up())

    def fail(self, error: Exception) -> None:
        """Say why it ends, unless it has."""
        if self._is_over:
            return
        problem = problem_of(error, writes=False)
        if not isinstance(error, Problem | ReplicationError):
            logger.error("a follower's read failed", exc_info=error)
        context = self._feeds.context
        context.traffic.count_answer(ROUTE, problem.status)
        self._door.push(problem_frame(context, self._request_id, problem))
        self._door.forget(self._request_id)
        self.end()

    def end(self) -> None:
        """Nobody follows any more."""
        self._is_over = True
        self._feeds.leave(self)
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _begin(self) -> None:
        try:
            context, head = self._feeds.context, self._head
            if head.after is not UNSET:
                await context.live_replica().wait_applied(head.after, timeout_s=LEVEL_TIMEOUT_S)
            info = await with_stream(context, self.stream)
            self.offset = await first_offset(context, ReadQuery(offset=head.offset), info)
            await self._greet()
            await self._catch_up()
        except Exception as error:
            self.fail(error)

    async def _guarded_catching_up(self) -> None:
        try:
            await self._catch_up()
        except Exception as error:
            self.fail(error)

    async def _greet(self) -> None:
        """Send the first page, which may be empty: it tells where the read begins."""
        page = await self._look()
        self.stream_id = page.result.stream_id
        self._feeds.context.traffic.count_answer(ROUTE, 200)
        self._send_page(page)

    async def _catch_up(self) -> None:
        while True:
            while not self.has_room:
                self._room.clear()
                await self._room.wait()
            page = await self._look()
            if page.result.stream_id != self.stream_id:
                raise deleted(self.stream)
            if page.batches:
                self._send_page(page)
            elif page.next_offset >= page.result.high_watermark and self._feeds.join(self):
                return
            await asyncio.sleep(0)

    async def _look(self) -> Page:
        context = self._feeds.context
        page = await read_page(
            context,
            self.stream,
            _EVERYTHING,
            self.offset,
            bytes_max=PAGE_BYTES,
            as_batches=True,
        )
        # From here on the connection's write buffer holds it, which has a bound of its own.
        context.answers.give_back(page.held_bytes)
        return page

    def _send_page(self, page: Page) -> None:
        self.send(page_payload(self._feeds.context, page, page.start), page.next_offset)


class _Feed:
    """The followers of one stream that have all of it but what the next round brings."""

    def __init__(self, feeds: Feeds, first: Follower) -> None:
        self.stream = first.stream
        self._feeds = feeds
        self._context = feeds.context
        self._stream_id = first.stream_id
        self._offset = first.offset
        self._followers = {first}
        self._task = asyncio.get_running_loop().create_task(self._run())

    def join(self, follower: Follower) -> bool:
        if follower.offset < self._offset:
            return False
        self._followers.add(follower)
        return True

    def leave(self, follower: Follower) -> bool:
        """True if that was the last one: the feed has ended."""
        if follower not in self._followers:
            return False
        self._followers.discard(follower)
        if not self._followers:
            self._task.cancel()
        return not self._followers

    async def _run(self) -> None:
        try:
            while self._followers:
                await self._round()
        except Exception as error:
            for follower in list(self._followers):
                follower.fail(error)
        finally:
            self._feeds.ended(self)

    async def _round(self) -> None:
        context = self._context
        page = await read_page(
            context,
            self.stream,
            _EVERYTHING,
            self._offset,
            bytes_max=PAGE_BYTES,
            wait_ms=int(BEAT_S * 1000),
            as_batches=True,
        )
        context.answers.give_back(page.held_bytes)
        if page.result.stream_id != self._stream_id:
            raise deleted(self.stream)
        self._send(page)
        self._offset = page.next_offset
        pause_s = min(PAUSE_S_MAX, PAUSE_S_EACH * len(self._followers))
        await asyncio.sleep(pause_s if pause_s >= _PAUSE_S_MIN else 0)

    def _send(self, page: Page) -> None:
        shared = page_payload(self._context, page, page.start)
        for follower in list(self._followers):
            if not follower.has_room:
                self._followers.discard(follower)
                follower.fall_behind()
            elif follower.offset == page.start:
                follower.send(shared, page.next_offset)
            elif follower.offset < page.next_offset:
                payload = page_payload(self._context, page, follower.offset)
                follower.send(payload, page.next_offset)


def deleted(stream: str) -> UnknownStream:
    """The name means another stream now, with offsets of its own."""
    return UnknownStream(f"stream {stream} was deleted", stream=stream)
