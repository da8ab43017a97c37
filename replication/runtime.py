"""The world as the engine sees it: clocks, an event loop, and threads that may block.

Everything the engine needs from outside is asked for here, so that a simulator can hand in a world
of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from . import upstream

T = TypeVar("T")
_UNSET: Any = object()


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


class Done(Future[Any]):
    """A future that nobody waits for, handed on when it is done: none of the locks of a real one,
    which cost as much as a small append.
    """

    def __init__(self) -> None:
        self._result = _UNSET
        self._exception: BaseException | None = None

    def set_result(self, result: Any) -> None:
        self._result = result

    def set_exception(self, exception: BaseException | None) -> None:
        self._exception = exception

    def result(self, timeout: float | None = None) -> Any:
        if self._exception is not None:
            raise self._exception
        assert self._result is not _UNSET, "the job has not ended"
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._exception


class LaneThread:
    """Runs jobs one after the other and hands each back to the loop.

    A daemon: one that hangs in the disk must not keep a process that has to end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Lane) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Future[Any]], None]] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"cute-{lane.value}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
        self._jobs.put((job, done))

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, hand_back = item
            done = Done()
            try:
                done.set_result(job())
            except BaseException as error:
                done.set_exception(error)
            with contextlib.suppress(RuntimeError):  # closed: the process is ending anyway
                self._loop.call_soon_threadsafe(hand_back, done)

    def close(self) -> None:
        """Wait for the jobs that were submitted, and end. Blocks."""
        self._jobs.put(None)
        self._thread.join()


class AsyncioRuntime:
    """The real world, on the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes = {lane: LaneThread(self._loop, lane) for lane in Lane}

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self._loop.call_later(max(0.0, when - upstream.now()), callback)

    def run(self, lane: Lane, job: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        self._lanes[lane].submit(job, done)

    def token(self) -> str:
        return secrets.token_hex(16)

    def close(self) -> None:
        """Wait for the jobs under way and end the threads. Blocks."""
        for lane in self._lanes.values():
            lane.close()
