"""Stands between the core and the state machine, to see what is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..machine import StateMachine
from ..members import Config

if TYPE_CHECKING:
    from .checks import Checks


class WatchedMachine:
    """A `raft.Machine` that tells the checks of every entry and its results."""

    def __init__(self, node_id: str, machine: StateMachine, checks: Checks) -> None:
        self._node_id = node_id
        self._machine = machine
        self._checks = checks

    @property
    def applied_index(self) -> int:
        return self._machine.applied_index

    def ready(self) -> bool:
        return self._machine.ready()

    def settle(self, index: int, config: Config) -> None:
        self._machine.settle(index, config)
        self._checks.settled(self._node_id, index, config)

    def apply(self, index: int, term: int, command: memoryview | None) -> Any:
        results = self._machine.apply(index, term, command)
        self._checks.applied(self._node_id, index, term, command, results, self._machine)
        return results
