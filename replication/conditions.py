"""What a replica does for conditions on keys and index values. `guards.py` says why it is exact."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .commands import AppendBatch, Transact
from .errors import Throttled, unknown_stream
from .guards import Guard, Placed, Verdict, Watch, condition_failed
from .index_calls import IndexCalls
from .machine import StateMachine
from .searches import Searches


class ConditionCalls(IndexCalls):
    """The part of a replica that judges them, on the leader."""

    @abstractmethod
    def _check_intake(self) -> None:
        """Raises what keeps this node from taking a command."""

    @abstractmethod
    def _knows_all(self) -> bool:
        """Whether everything in the log that is not applied was proposed here, in this term."""

    async def _submit_if(
        self,
        command: AppendBatch | Transact,
        body_bytes: int,
        conditions: Sequence[Placed],
        timeout_s: float,
    ) -> Any:
        if not conditions:
            return await self._submit(command, body_bytes, timeout_s)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self._check_intake()
            try:
                async with asyncio.timeout_at(deadline):
                    guard = await guard_of(
                        self._machine,
                        self._searches(),
                        command,
                        conditions,
                        knows_all=self._knows_all,
                    )
            except TimeoutError:
                raise Throttled("its conditions could not be judged in time") from None
            outcome = await self._submit(command, body_bytes, deadline - loop.time(), guard)
            if outcome is not Verdict.LOOK_AGAIN:
                return outcome


async def guard_of(
    machine: StateMachine,
    searches: Searches,
    command: AppendBatch | Transact,
    conditions: Sequence[Placed],
    *,
    knows_all: Callable[[], bool],
) -> Guard:
    """Judge the conditions by all that is applied; who then judges by the rest.

    Raises ConditionFailed, UnknownStream, and what a search raises.
    """
    is_repeat = partial(machine.is_repeat, command)
    watches = []
    for name, condition, part_index in conditions:
        stream = machine.streams.get(name)
        if stream is None:
            raise unknown_stream(name)
        checked_to = stream.next_offset
        found = await searches.first_broken(stream, condition)
        if found is not None and not is_repeat():
            raise condition_failed(found, part_index)
        watches.append(Watch(stream, searches.accepts(stream, condition), checked_to, part_index))
    return Guard(watches, machine.recent, is_repeat=is_repeat, knows_all=knows_all)
