"""What a replica does for conditions on keys and index values. `guards.py` says why it is exact."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from .commands import AppendBatch, Transact
from .errors import Throttled
from .guards import Guard, Placed, Verdict, Watch, condition_failed
from .index_calls import IndexCalls


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
                    guard = await self._guard_of(command, conditions)
            except TimeoutError:
                raise Throttled("its conditions could not be judged in time") from None
            outcome = await self._submit(command, body_bytes, deadline - loop.time(), guard)
            if outcome is not Verdict.LOOK_AGAIN:
                return outcome

    async def _guard_of(
        self, command: AppendBatch | Transact, conditions: Sequence[Placed]
    ) -> Guard:
        """Judge them by all that is applied. ConditionFailed, and what a search raises."""
        is_repeat = partial(self._machine.is_repeat, command)
        watches = []
        for name, condition, part_index in conditions:
            stream = self._stream(name)
            checked_to = stream.next_offset
            found = await self._searches().first_broken(stream, condition)
            if found is not None and not is_repeat():
                raise condition_failed(found, part_index)
            accepts = self._searches().accepts(stream, condition)
            watches.append(Watch(stream, accepts, checked_to, part_index))
        recent = self._machine.recent
        return Guard(watches, recent, is_repeat=is_repeat, knows_all=self._knows_all)
