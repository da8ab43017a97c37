"""The virtual clock with the queue of all that is to happen, and the trace of what did."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

import xxhash

Step = Callable[[], None]

LINES_KEPT = 3_000
STAMP = struct.Struct("<d")


class Scheduler:
    """Runs steps in the order of their virtual times; of equal times, in the order of `at`."""

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds since the simulation began."""
        self.steps = 0
        self.is_over = False
        """Nothing more is to happen."""
        self._queue: list[tuple[float, int, Step]] = []
        self._number = 0

    def at(self, when: float, step: Step) -> None:
        self._number += 1
        heappush(self._queue, (when if when > self.now else self.now, self._number, step))

    def after(self, delay_s: float, step: Step) -> None:
        self._number += 1
        heappush(self._queue, (self.now + delay_s, self._number, step))

    def run_until(self, end: float) -> None:
        """Run what is due before `end`, unless it is over earlier."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            if self.is_over:
                return
            self.now, _, step = heappop(queue)
            self.steps += 1
            step()
        self.now = max(self.now, end)


class Trace:
    """A hash over everything that happened, and the newest lines of it in words.

    Most of what happens is messages, and nobody reads most lines: the hash takes a message's
    digest, and words are made of those that are asked for.
    """

    def __init__(self, scheduler: Scheduler, lines_max: int | None = LINES_KEPT) -> None:
        self._lines: deque[tuple[float, str, Callable[[], str] | None]] = deque(maxlen=lines_max)
        self._scheduler = scheduler
        self._hash = xxhash.xxh3_128()

    def add(self, text: str) -> None:
        now = self._scheduler.now
        self._hash.update(STAMP.pack(now) + text.encode())
        self._lines.append((now, text, None))

    def add_digest(self, text: str, digest: bytes, more: Callable[[], str]) -> None:
        """Something that `digest` stands for; `more` puts it into words if they are wanted."""
        now = self._scheduler.now
        self._hash.update(STAMP.pack(now) + text.encode() + digest)
        self._lines.append((now, text, more))

    def lines(self) -> list[str]:
        return [
            f"{at:11.6f} {text}" if more is None else f"{at:11.6f} {text} {more()}"
            for at, text, more in self._lines
        ]

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
