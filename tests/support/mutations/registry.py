"""Deliberate bugs, and how soon the simulator has to notice each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cute_logger.replication.sim.modes import Mode
from cute_logger.replication.sim.runner import simulate

FIRST_SEED = 0
SEEDS = 60

Break = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutation:
    name: str
    breaks: str
    """The function that does not do what it should."""
    break_it: Break
    mode: str | Mode

    @property
    def mode_name(self) -> str:
        return self.mode if isinstance(self.mode, str) else self.mode.name


@dataclass(frozen=True)
class Noticed:
    seeds: int
    kind: str


MUTATIONS: dict[str, Mutation] = {}


def mutation(name: str, breaks: str, mode: str | Mode) -> Callable[[Break], Break]:
    def register(break_it: Break) -> Break:
        MUTATIONS[name] = Mutation(name, breaks, break_it, mode)
        return break_it

    return register


def play(mutation: Mutation) -> Noticed | None:
    """Break it, and play seeds until one notices, or SEEDS have passed."""
    with pytest.MonkeyPatch.context() as patch:
        mutation.break_it(patch)
        for number in range(SEEDS):
            for violation in simulate(mutation.mode, FIRST_SEED + number).violations[:1]:
                return Noticed(number + 1, violation.kind)
    return None
