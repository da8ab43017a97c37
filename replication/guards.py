"""Conditions on what a stream holds: no record of a key, or of an index's value, behind an offset.

Apply cannot look such things up: it only touches memory, and an index is each node's own. The
leader can, and what it finds is final: an entry is committed only behind exactly the log that the
leader had in front of it when it proposed it. So the condition is judged when the command is
proposed, over everything in front of it: first, with time to look at indexes and files, over what
was applied then (`Watch.checked_to`); then, in the turn that proposes it, over what was applied
since and over the entries under way. Of those nobody knows yet whether apply takes or refuses them,
so if one of them has such a record the command waits until it is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from ..storage.batch import BODY_BYTES_MAX, Batch
from ..storage.codec import unpack
from ..storage.record import StoredRecord, decode_rows
from .commands import AppendBatch, Command, Transact
from .errors import ConditionFailed
from .recent import Recent
from .stream import Stream
from .transactions import blame
from .types import NoRecord

Accepts = Callable[[StoredRecord], bool]

_LOOK_BYTES = 1 << 20


class Verdict(Enum):
    HOLDS = auto()
    WAIT = auto()
    """A command under way may break the condition, or may itself be refused."""
    LOOK_AGAIN = auto()
    """Too much was applied since somebody looked."""


class Placed(NamedTuple):
    """A condition of an append, which may be part of a transaction."""

    stream: str
    condition: NoRecord
    part_index: int | None


class Watch:
    """One condition on one stream."""

    def __init__(
        self, stream: Stream, accepts: Accepts, checked_to: int, part_index: int | None = None
    ) -> None:
        self.stream = stream
        self.part_index = part_index
        """Which append of a transaction asks for it."""
        self._accepts = accepts
        self._checked_to = checked_to
        """No record below it that counts is accepted."""

    def follow(self, recent: Recent) -> int | Verdict:
        """Judge what was applied since; the offset of a record that breaks the condition."""
        while self._checked_to < self.stream.next_offset:
            batches = recent.newest(self.stream.id, self._checked_to, _LOOK_BYTES)
            if not batches:
                return Verdict.LOOK_AGAIN
            for batch in batches:
                found = self._first_in(batch)
                if found is not None:
                    return found
            self._checked_to = batches[-1].next_offset
        return Verdict.HOLDS

    def _first_in(self, batch: Batch) -> int | None:
        found = filter(self._accepts, batch.records_from(self._checked_to))
        return next((record.offset for record in found), None)

    def is_broken_by(self, append: AppendBatch) -> bool:
        """Would it be, if that were taken?"""
        if append.stream != self.stream.name:
            return False
        return any(
            self._accepts(StoredRecord(0, 0, key, value, headers or {}))
            for key, value, headers, _ in decode_rows(
                unpack(append.codec, append.body, BODY_BYTES_MAX)
            )
        )


class Guard:
    """All conditions of one command."""

    def __init__(
        self,
        watches: Sequence[Watch],
        recent: Recent,
        *,
        is_repeat: Callable[[], bool],
        knows_all: Callable[[], bool],
    ) -> None:
        """`is_repeat`: apply has seen the command, and answers it whatever the conditions are.
        `knows_all`: every entry of the log that is not applied is under way here.
        """
        self._watches = watches
        self._recent = recent
        self._is_repeat = is_repeat
        self._knows_all = knows_all
        self._cleared = 0
        """Number of the last command under way that breaks nothing."""

    @property
    def cleared(self) -> int:
        return self._cleared

    def judge(self, ahead: Iterator[tuple[int, Command]]) -> Verdict | ConditionFailed:
        """Judge by the commands proposed behind `cleared`, with their numbers."""
        if not self._knows_all():
            return Verdict.WAIT
        if self._is_repeat():
            return Verdict.HOLDS
        for watch in self._watches:
            found = watch.follow(self._recent)
            if isinstance(found, int):
                return condition_failed(found, watch.part_index)
            if found is not Verdict.HOLDS:
                return found
        for number, command in ahead:
            for append in _appends_of(command):
                if any(watch.is_broken_by(append) for watch in self._watches):
                    return Verdict.WAIT
            self._cleared = number
        return Verdict.HOLDS


def condition_failed(offset: int, part_index: int | None) -> ConditionFailed:
    failed = ConditionFailed(f"the record at offset {offset} is in the way", actual=offset)
    if part_index is not None:
        blame(failed, "appends", part_index)
    return failed


def _appends_of(command: Command) -> Sequence[AppendBatch]:
    if isinstance(command, AppendBatch):
        return (command,)
    return command.appends if isinstance(command, Transact) else ()
