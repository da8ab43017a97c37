"""The world as the engine sees it: clocks, an event loop, and threads that may block.

Everything the engine needs from outside is asked for here, so that a simulator can hand in a world
of its own.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from . import upstream

T = TypeVar("T")


class Lane(enum.Enum):
    """Jobs of one lane run one after the other, on a thread of their own.

    The write-ahead log has its lane to itself: an append's fsync must not queue behind a
    checkpoint's.
    """

    WAL = "wal"
    STREAMS = "streams"
    INDEX = "index"
    """Secondary indexes: nobody who appends or reads waits for it."""


class Runtime(Protocol):
    def wall_ms(self) -> int:
        """Wall clock, ms since the epoch; may jump."""

    def call_soon(self, callback: Callable[[], None]) -> None: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at `when` by `upstream.now`, or a little later."""

    def run(self, lane: Lane, job: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """Run `job` on the lane's thread, then `done` on the loop; `Future.result` raises what the
        job raised.
        """

    def token(self) -> str:
        """A fresh random identifier."""


class AsyncioRuntime:
    """The real world, on the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes = {
            lane: ThreadPoolExecutor(1, thread_name_prefix=f"cute-{lane.value}") for lane in Lane
        }

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._loop.call_later(max(0.0, when - upstream.now()), callback)

    def run(self, lane: Lane, job: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        def hand_back(future: Future[T]) -> None:
            # The loop is closed if the process is ending anyway.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, future)

        self._lanes[lane].submit(job).add_done_callback(hand_back)

    def token(self) -> str:
        return secrets.token_hex(16)

    def close(self) -> None:
        """Wait for the jobs under way and end the threads. Blocks."""
        for lane in self._lanes.values():
            lane.shutdown(wait=True)
