"""Deliberate bugs in conditions on keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cute_logger.replication.commands import Command
from cute_logger.replication.guards import Guard, Verdict, Watch
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.sim.modes import Mode
from support.mutations.registry import mutation

CLAIMS = Mode(
    "claims",
    {"kill_leader": 2, "transfer": 2, "power_leader": 1, "slow_disk": 1},
    fault_every_s=1.0,
    appenders=1,
    readers=0,
    consumers=0,
    claimers=6,
    has_indexes=False,
    varies=False,
)


@mutation("what is under way breaks no condition", "Guard.judge", CLAIMS)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Guard.judge

    def judge(self: Guard, ahead: Iterator[tuple[int, Command]]) -> Any:
        return original(self, iter(()))

    patch.setattr(Guard, "judge", judge)


@mutation("what was applied since a condition was judged breaks it not", "Watch.follow", CLAIMS)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watch, "follow", lambda self, recent: Verdict.HOLDS)


@mutation("a new leader judges before it knows its log", "Guard.__init__", CLAIMS)
def _(patch: pytest.MonkeyPatch) -> None:
    original = Guard.__init__

    def init(self: Guard, *args: Any, **facts: Any) -> None:
        original(self, *args, **facts | {"knows_all": lambda: True})

    patch.setattr(Guard, "__init__", init)


@mutation("a repeat breaks its own condition", "StateMachine.is_repeat", CLAIMS)
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StateMachine, "is_repeat", lambda self, command: False)
