"""Runtimes without threads or time, for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cute_logger.replication import upstream
from cute_logger.replication.runtime import Done, Lane
from cute_logger.storage.errors import StorageError


class AtOnce:
    """A Runtime whose jobs are done when they are asked for."""

    def wall_ms(self) -> int:
        return 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        assert when > upstream.now()

    def run(self, lane: Lane, job: Callable[[], object], done: Callable[[Done], None]) -> None:
        future = Done()
        try:
            future.set_result(job())
        except (StorageError, OSError) as error:
            future.set_exception(error)
        done(future)

    def token(self) -> str:
        return "0" * 32


class InTurn(AtOnce):
    """A Runtime whose jobs wait until the test has them done."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def run(self, lane: Lane, job: Callable[[], object], done: Callable[[Done], None]) -> None:
        self._waiting.append(partial(super().run, lane, job, done))

    def run_jobs(self) -> None:
        while self._waiting:
            self._waiting.pop(0)()
