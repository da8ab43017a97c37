from __future__ import annotations

import errno
import logging
from typing import Any

import pytest

from cute_logger.node.logs import QUIET_S, LoopErrors

NO_FILE = {"exception": OSError(errno.EMFILE, "too many open files"), "socket": object()}


class Loop:
    def __init__(self) -> None:
        self.now = 1000.0
        self.others: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.others.append(context)


def test_failures_to_accept_are_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    loop, handle = Loop(), LoopErrors()
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            handle(loop, NO_FILE)
        loop.now += QUIET_S
        handle(loop, NO_FILE)
    assert [record.attempts for record in caplog.records] == [1, 1000]
    assert loop.others == []


def test_other_errors_of_a_loop_are_told_as_ever() -> None:
    loop, handle = Loop(), LoopErrors()
    others: list[dict[str, Any]] = [
        {"message": "a task failed", "exception": ValueError()},
        {"message": "a file", "exception": NO_FILE["exception"]},
    ]
    for context in others:
        handle(loop, context)
    assert loop.others == others
