"""One process's event loop and threads, in virtual time (a `replication.runtime.Runtime`)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from random import Random
from typing import Any, Protocol, TypeVar

from ..runtime import Done, Lane
from .clock import NodeClock
from .disk import SimDisk, Stopped
from .scheduler import Scheduler, Step

T = TypeVar("T")

TIMER_LATE_S = 0.001
"""Timers fire up to this much late."""


class Host(Protocol):
    """Where the process runs."""

    life: int

    def enter(self, step: Step, life: int) -> None:
        """Run `step` as the process of that life, unless it is gone; later, while it is paused."""

    def stopped_writing(self) -> None:
        """The disk stopped the process in the middle of a job."""

    def job_failed(self, error: BaseException) -> None:
        """The loop has been told that a job raised this."""


class SimRuntime:
    def __init__(
        self,
        host: Host,
        scheduler: Scheduler,
        clock: NodeClock,
        disk: SimDisk,
        rng: Random,
        *,
        fsync_s: float,
        wall_ms: Callable[[], int],
    ) -> None:
        self.disk_slow_s = 0.0
        """Added to every job while the disk is slow."""
        self.soon: deque[Step] = deque()
        """Whoever has the process do something runs these before anything else happens."""
        self._host = host
        self._life = host.life
        self._scheduler = scheduler
        self._clock = clock
        self._disk = disk
        self._rng = rng
        self._fsync_s = fsync_s
        self._wall_ms = wall_ms
        self._lanes: dict[Lane, deque[Step]] = {lane: deque() for lane in Lane}

    def wall_ms(self) -> int:
        return self._wall_ms()

    def call_soon(self, callback: Step) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Step) -> None:
        late_s = self._rng.random() * TIMER_LATE_S
        step = partial(self._host.enter, callback, self._life)
        self._scheduler.at(self._clock.virtual(when) + late_s, step)

    def run(self, lane: Lane, job: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        waiting = self._lanes[lane]
        waiting.append(partial(self._execute, lane, job, done))
        if len(waiting) == 1:
            self._begin(lane)

    def token(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _begin(self, lane: Lane) -> None:
        step = partial(self._host.enter, self._lanes[lane][0], self._life)
        self._scheduler.after(self._latency(), step)

    def _latency(self) -> float:
        """Half of what a job takes: its effect comes in the middle."""
        varying_s = -math.log(1.0 - self._rng.random()) * self._fsync_s / 2
        return 0.0001 + varying_s + self.disk_slow_s / 2

    def _execute(
        self, lane: Lane, job: Callable[[], Any], done: Callable[[Future[Any]], None]
    ) -> None:
        future = Done()
        self._disk.is_usable = True
        try:
            future.set_result(job())
        except Stopped:
            self._host.stopped_writing()
            return
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._disk.is_usable = False
        hand_back = partial(self._host.enter, partial(self._finish, lane, future, done), self._life)
        self._scheduler.after(self._latency(), hand_back)

    def _finish(self, lane: Lane, future: Future[Any], done: Callable[[Future[Any]], None]) -> None:
        waiting = self._lanes[lane]
        waiting.popleft()
        if waiting:
            self._begin(lane)
        done(future)
        error = future.exception()
        if error is not None:
            self._host.job_failed(error)
