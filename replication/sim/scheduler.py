"""The virtual clock with the queue of all that is to happen, and the trace of what did."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

import xxhash

Step = Callable[[], None]

LINES_KEPT = 3_000


class Scheduler:
    """Runs steps in the order of their virtual times; of equal times, in the order of `at`."""

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds since the simulation began."""
        self.steps = 0
        self._queue: list[tuple[float, int, Step]] = []
        self._number = 0

    def at(self, when: float, step: Step) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(when, self.now), self._number, step))

    def after(self, delay_s: float, step: Step) -> None:
        self.at(self.now + delay_s, step)

    def run_until(self, end: float, is_over: Callable[[], bool]) -> None:
        """Run what is due before `end`, unless `is_over` says so earlier."""
        while self._queue and self._queue[0][0] <= end:
            if is_over():
                return
            self.now, _, step = heapq.heappop(self._queue)
            self.steps += 1
            step()
        self.now = max(self.now, end)


class Trace:
    """A hash over everything that happened, and the newest lines of it in words."""

    def __init__(self, scheduler: Scheduler, lines_max: int | None = LINES_KEPT) -> None:
        self.lines: deque[str] = deque(maxlen=lines_max)
        self._scheduler = scheduler
        self._hash = xxhash.xxh3_128()

    def add(self, text: str) -> None:
        line = f"{self._scheduler.now:11.6f} {text}"
        self._hash.update(line.encode())
        self.lines.append(line)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
