"""Work that blocks, done on another thread and taken in on the loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from .runtime import Lane, Runtime

T = TypeVar("T")


def check(done: Future[Any]) -> None:
    """Nothing is wanted of the job but that it did not fail: raise what it raised."""
    done.result()


class Jobs:
    """A Runtime whose answers are steps of one engine: what raises ends the node."""

    def __init__(self, runtime: Runtime, guard: Callable[..., None]) -> None:
        """`guard` calls a step with the arguments behind it, unless the engine has stopped."""
        self._runtime = runtime
        self._guard = guard

    def run(
        self, lane: Lane, job: Callable[[], T], done: Callable[[Future[T]], None] = check
    ) -> None:
        """Run `job` on the lane's thread, then `done` on the loop."""
        self._runtime.run(lane, job, partial(self._guard, done))

    def call_at(self, when: float, step: Callable[[], None]) -> None:
        """Call `step` on the loop at `when` by `upstream.now`, or a little later."""
        self._runtime.call_at(when, partial(self._guard, step))
