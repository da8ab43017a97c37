"""How much room the disk has, so that appends are refused before a write can fail.

The disk is asked once a second; in between, what goes to the write-ahead log is counted off twice,
because a stream's file will hold it too. Two marks: below the reserve this node is *short* (it says
so, and no appends are taken while a majority or the leader is), far below it is *full* (it accepts
no entries any more). Between the two, deletes and trims still pass and make room.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial

from ..storage.filesystem import FileSystem
from . import upstream
from .jobs import Jobs
from .runtime import Lane

LOOK_S = 1.0
COPIES = 2
FULL_SHARE = 8
"""Full means less than the reserve divided by this."""


class Capacity:
    def __init__(self, files: FileSystem, path: str, reserve_bytes: int, jobs: Jobs) -> None:
        self._files = files
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._jobs = jobs
        self._free_bytes: int | None = None
        self._spent_bytes = 0
        self._looking = False
        self._look_at = float("-inf")

    def poll(self) -> None:
        """Called now and then: look at the disk when it is time."""
        if not self._looking and upstream.now() >= self._look_at:
            self._looking = True
            spent = self._spent_bytes
            job = partial(self._files.free_bytes, self._path)
            self._jobs.run(Lane.STREAMS, job, partial(self._seen, spent))

    def _seen(self, spent_before: int, done: Future[int]) -> None:
        self._looking = False
        self._look_at = upstream.now() + LOOK_S
        self._free_bytes = done.result()
        self._spent_bytes -= spent_before

    def spend(self, size: int) -> None:
        """`size` bytes go to the write-ahead log."""
        self._spent_bytes += COPIES * size

    @property
    def free_bytes(self) -> int | None:
        """What is left by all that is known; None before the first look."""
        if self._free_bytes is None:
            return None
        return max(0, self._free_bytes - self._spent_bytes)

    def is_short(self, waiting_bytes: int = 0) -> bool:
        """Is the reserve touched, or would it be by `waiting_bytes` more?"""
        free = self.free_bytes
        return free is not None and free - COPIES * waiting_bytes < self._reserve_bytes

    def is_full(self) -> bool:
        free = self.free_bytes
        return free is not None and free < self._reserve_bytes // FULL_SHARE
