"""What a replica does for consumer groups: their offsets, leases and transactions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import xxhash

from .commands import (
    AcquireLease,
    AppendBatch,
    Command,
    CommitOffset,
    DeleteGroup,
    ReleaseLease,
    Transact,
)
from .dedupe import body_digest
from .errors import BatchTooLarge
from .groups import describe, unknown_group
from .guards import Guard, Placed
from .reads import LocalReads
from .types import (
    Append,
    CommitReceipt,
    GroupInfo,
    GroupPosition,
    LeaseGrant,
    OffsetCommit,
    Transaction,
    TransactionReceipt,
)

BODY_BYTES_MAX = 4 << 20
"""Largest body of one append, or of all appends of a transaction."""


class GroupCalls(LocalReads):
    """The part of a replica that groups use. Writes raise what `Replica.append` raises, too."""

    @abstractmethod
    async def _submit(
        self, command: Command, body_bytes: int, timeout_s: float, guard: Guard | None = None
    ) -> Any:
        """Have the command applied and return its result, or raise its refusal. With a guard that
        says so, `Verdict.LOOK_AGAIN`.
        """

    @abstractmethod
    async def _submit_if(
        self,
        command: AppendBatch | Transact,
        body_bytes: int,
        conditions: Sequence[Placed],
        timeout_s: float,
    ) -> Any:
        """Do that if the conditions hold."""

    # ---- reads, on any node

    def groups(self) -> list[GroupInfo]:
        self._check_synced()
        return [self.group(name) for name in self._machine.groups.names()]

    def group(self, name: str) -> GroupInfo:
        """A group with its position in every stream. UnknownGroup."""
        self._check_synced()
        machine, now = self._machine, self._runtime.wall_ms()
        positions = machine.groups.positions(name)
        if not positions:
            raise unknown_group(name)
        return GroupInfo(
            name,
            [
                describe(machine.groups, name, machine.streams[stream], position, now)
                for stream, position in positions
            ],
        )

    def group_position(self, group: str, stream: str) -> GroupPosition:
        """UnknownStream, UnknownGroup; its `offset` is None if nothing was committed yet."""
        found = self._stream(stream)
        table = self._machine.groups
        if group not in table:
            raise unknown_group(group)
        position = table.find(group, stream)
        return describe(table, group, found, position, self._runtime.wall_ms())

    # ---- writes, on the leader

    async def commit_offset(self, commit: OffsetCommit, *, timeout_s: float) -> CommitReceipt:
        """Note how far a group has come. The same commit twice is as good as once.

        Raises UnknownStream, LeaseLost, ConditionFailed (back, under a lease),
        BeyondHighWatermark.
        """
        command = self._command_of(commit)
        return cast("CommitReceipt", await self._submit(command, 0, timeout_s))

    async def acquire_lease(
        self, group: str, stream: str, member: str, ttl_ms: int, *, timeout_s: float
    ) -> LeaseGrant:
        """Take or renew the lease on a group's position. UnknownStream, LeaseLost."""
        command = AcquireLease(group, stream, member, ttl_ms, self._runtime.wall_ms())
        return cast("LeaseGrant", await self._submit(command, 0, timeout_s))

    async def release_lease(
        self, group: str, stream: str, *, lease: int | None, member: str | None, timeout_s: float
    ) -> None:
        """End the lease that has this number, or this member. UnknownStream, LeaseLost."""
        command = ReleaseLease(group, stream, lease, member, self._runtime.wall_ms())
        await self._submit(command, 0, timeout_s)

    async def delete_group(self, name: str, *, timeout_s: float) -> None:
        """Forget a group. UnknownGroup; LeaseLost while somebody holds a lease."""
        await self._submit(DeleteGroup(name, self._runtime.wall_ms()), 0, timeout_s)

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> TransactionReceipt:
        """Do all of it or nothing; a refusal's facts `part` and `part_index` say what is to blame.

        Raises what `append` and `commit_offset` raise, and IdempotencyConflict for a batch whose
        producer sequence was appended before.
        """
        body_bytes = sum(len(append.body) for append in transaction.appends)
        if body_bytes > BODY_BYTES_MAX:
            raise BatchTooLarge(f"appends of {body_bytes} bytes in all", limit_bytes=BODY_BYTES_MAX)
        appends = [self._batch_of(append, with_key=False) for append in transaction.appends]
        commits = [self._command_of(commit) for commit in transaction.commits]
        command = Transact(
            appends,
            commits,
            transaction.idempotency_key,
            transaction_digest(appends, commits),
            self._runtime.wall_ms(),
        )
        conditions = [
            Placed(append.stream, condition, at)
            for at, append in enumerate(transaction.appends)
            for condition in append.conditions
        ]
        receipt = await self._submit_if(command, body_bytes, conditions, timeout_s)
        return cast("TransactionReceipt", receipt)

    def _command_of(self, commit: OffsetCommit) -> CommitOffset:
        return CommitOffset(
            commit.group, commit.stream, commit.offset, commit.lease, self._runtime.wall_ms()
        )

    def _batch_of(self, append: Append, *, with_key: bool) -> AppendBatch:
        stamp = append.producer
        return AppendBatch(
            append.stream,
            append.body,
            append.count,
            append.record_bytes_max,
            self._runtime.wall_ms(),
            append.max_timestamp,
            append.if_offset,
            (stamp.id, stamp.epoch, stamp.sequence) if stamp is not None else None,
            append.idempotency_key if with_key else None,
            body_digest(append.body) if append.digest is None else append.digest,
            append.codec,
            append.keyless,
        )


def transaction_digest(appends: list[AppendBatch], commits: list[CommitOffset]) -> bytes:
    """Tells a repeat from another transaction under the same key."""
    appended = [(append.stream, append.digest) for append in appends]
    committed = [(commit.group, commit.stream, commit.offset) for commit in commits]
    return xxhash.xxh3_128_digest(msgspec.msgpack.encode((appended, committed)))
