"""Deliberate bugs in groups, leases and transactions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cute_logger.replication.commands import AcquireLease, CommitOffset, Transact
from cute_logger.replication.errors import ConditionFailed, LeaseLost, Refused
from cute_logger.replication.groups import GroupMeta, GroupTable, Lease
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.transactions import TransactionTable, Trial
from support.mutations.registry import mutation


def _forgive(patch: pytest.MonkeyPatch, kind: type[Refused]) -> None:
    """Commits are not refused for this reason."""
    original = GroupTable.refusal_of

    def refusal_of(self: GroupTable, commit: CommitOffset, next_offset: int) -> Refused | None:
        refusal = original(self, commit, next_offset)
        return None if isinstance(refusal, kind) else refusal

    patch.setattr(GroupTable, "refusal_of", refusal_of)


@mutation("a fenced lease still commits", "GroupTable.refusal_of", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    _forgive(patch, LeaseLost)


@mutation("a late commit takes the offset back", "GroupTable.refusal_of", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    _forgive(patch, ConditionFailed)


@mutation("a lease is given while somebody holds it", "GroupTable.acquire", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = GroupTable.acquire

    def acquire(self: GroupTable, command: AcquireLease, *where: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(GroupTable, "left_ms", lambda self, lease, since_ms=0: 0)
            return original(self, command, *where)

    patch.setattr(GroupTable, "acquire", acquire)


@mutation("an expired lease is never given on", "GroupTable.left_ms", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    def left_ms(self: GroupTable, lease: Lease, since_ms: int = 0) -> int:
        return 1

    patch.setattr(GroupTable, "left_ms", left_ms)


@mutation("positions are not in the checkpoint", "GroupTable.dump", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupTable, "load", lambda self, rows: None)


@mutation("the leases' counter is not in the checkpoint", "GroupTable.meta", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = GroupTable.meta

    def meta(self: GroupTable) -> GroupMeta:
        return msgspec.structs.replace(original(self), next_lease=1)

    patch.setattr(GroupTable, "meta", meta)


@mutation("positions outlive their stream", "GroupTable.forget_stream", "calm")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupTable, "forget_stream", lambda self, stream: None)


@mutation("a transaction is done up to what is refused", "StateMachine._transact", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = StateMachine._transact

    def transact(self: StateMachine, command: Transact, index: int, term: int) -> Any:
        result = original(self, command, index, term)
        if isinstance(result, Refused) and result.facts.get("part") == "commits":
            for append in command.appends:
                self._write(self.streams[append.stream], append, index, term)
        return result

    patch.setitem(StateMachine._HANDLERS, Transact, transact)


@mutation("transactions' keys are not in the checkpoint", "TransactionTable.dump", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransactionTable, "dump", lambda self: [])


@mutation("a transaction's key is not looked at", "TransactionTable.repeat", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TransactionTable, "repeat", lambda self, command, log_time: None)


@mutation("a transaction's parts do not see those before them", "Trial._next_offset", "calm")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Trial, "_next_offset", lambda self, stream: stream.next_offset)


@mutation("conditions in a transaction are ignored", "Trial._append", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = Trial._append

    def append(self: Trial, command: Any) -> Refused | None:
        refusal = original(self, command)
        return None if isinstance(refusal, ConditionFailed) else refusal

    patch.setattr(Trial, "_append", append)
