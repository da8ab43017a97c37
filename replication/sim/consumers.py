"""Clients that consume: they take leases, commit how far they have come, and write what they make
of it in the same transaction. Some are slow, some never give back what they hold, and now and then
a copy of an old commit arrives late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import xxhash

from ...storage.record import Record, encode_records
from ..commands import (
    AcquireLease,
    AppendBatch,
    Command,
    CommitOffset,
    DeleteGroup,
    ReleaseLease,
    Transact,
)
from ..errors import OutcomeUnknown, Refused
from ..group_calls import transaction_digest
from ..types import CommitReceipt, LeaseGrant, TransactionReceipt
from .clients import AGAIN_SHARE, PASSING_STREAMS, SHARED_STREAMS, Caller, is_decided
from .history import History, Operation, Outcome
from .node import SimNode
from .world import World

GROUPS = ("g", "h")
TTLS_MS = (100, 500, 5_000)
LATE_SHARE = 0.1
"""So often an earlier commit is sent again behind a later one."""

Step = Callable[[], None]


@dataclass(slots=True)
class Work:
    """What a consumer does under one lease."""

    group: str
    stream: str
    lease: int
    ttl_ms: int
    offset: int
    """Committed so far, as far as it knows."""
    left: int
    """Steps still to go."""
    committed: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Whole:
    """A transaction with all its retries."""

    operations: list[Operation]
    work: Work
    offset: int
    key: str | None
    receipt: TransactionReceipt | None = None


class Consumer(Caller):
    def __init__(self, world: World, rng: Random, history: History, number: int) -> None:
        super().__init__(world, rng)
        self._history = history
        self._member = f"m{number}"
        self._transactions = 0

    def begin(self) -> None:
        """Think, then do one thing, from beginning to end."""
        if self.world.is_healing:
            return
        self._look()
        pause_s = self.rng.expovariate(1 / self.world.mode.think_s)
        (step,) = self.rng.choices(
            (self._acquire, self._commit_plainly, self._delete_group), (12, 4, 1)
        )
        self.later(pause_s, step)

    def _look(self) -> None:
        """What any node shows is what the log made of it."""
        node = self.world.nodes[self.rng.choice(self.world.node_ids)]
        if node.process is not None:
            machine = node.process.recovered.machine
            self.world.checks.groups.check_node(node.id, machine.applied_index, machine.groups)

    def _place(self) -> tuple[str, str]:
        streams = (*SHARED_STREAMS, *PASSING_STREAMS[:1])
        return self.rng.choice(GROUPS), self.rng.choice(streams)

    # ---- without a lease

    def _commit_plainly(self) -> None:
        group, stream = self._place()
        offset = self.rng.randint(0, self.world.checks.acked_ends.get(stream, 0))
        self._until_decided(partial(self._commit, group, stream, offset, None), self._committed)

    def _committed(self, outcome: Any) -> None:
        self._check_commit(outcome)
        self.begin()

    def _delete_group(self) -> None:
        name = self.rng.choice(GROUPS)
        self.call(lambda node: DeleteGroup(name, node.wall_ms()), lambda outcome: self.begin())

    # ---- under a lease

    def _acquire(self) -> None:
        group, stream = self._place()
        ttl_ms = self.rng.choice(TTLS_MS)

        def make(node: SimNode) -> Command:
            return AcquireLease(group, stream, self._member, ttl_ms, node.wall_ms())

        def granted(outcome: Any) -> None:
            if not isinstance(outcome, LeaseGrant):
                self.begin()
                return
            self.world.checks.promised(outcome.index, outcome.term)
            left = self.rng.randint(1, 6)
            self._go_on(Work(group, stream, outcome.lease, ttl_ms, outcome.offset or 0, left))

        self.call(make, granted)

    def _go_on(self, work: Work) -> None:
        """Rest a little, or for so long that the lease expires; then the next step."""
        if self.world.is_healing:
            return
        if not work.left:
            self._release(work)
            return
        work.left -= 1
        pauses_s = (0.0, 0.05, 0.3, 1.2 * work.ttl_ms / 1000)
        (pause_s,) = self.rng.choices(pauses_s, (3, 3, 2, 1))
        transacts = work.stream in SHARED_STREAMS and self.rng.random() < 0.4
        self.later(pause_s, partial(self._transact if transacts else self._step, work))

    def _step(self, work: Work) -> None:
        offset = self._next_offset(work)
        if work.committed and self.rng.random() < LATE_SHARE:
            offset = self.rng.choice(work.committed)
        make = partial(self._commit, work.group, work.stream, offset, work.lease)
        self._until_decided(make, partial(self._stepped, work))

    def _next_offset(self, work: Work) -> int:
        end = self.world.checks.acked_ends.get(work.stream, 0)
        return max(work.offset, min(work.offset + self.rng.randint(0, 3), end))

    def _stepped(self, work: Work, outcome: Any) -> None:
        if isinstance(outcome, CommitReceipt):
            self._check_commit(outcome)
            work.offset = max(work.offset, outcome.offset)
            work.committed.append(outcome.offset)
            self._go_on(work)
        else:
            self.begin()

    def _release(self, work: Work) -> None:
        """Or leave without a word."""
        if self.rng.random() < 0.4:
            self.begin()
            return

        def make(node: SimNode) -> Command:
            return ReleaseLease(work.group, work.stream, work.lease, None, node.wall_ms())

        self.call(make, lambda outcome: self.begin())

    def _commit(
        self, group: str, stream: str, offset: int, lease: int | None, node: SimNode
    ) -> CommitOffset:
        return CommitOffset(group, stream, offset, lease, node.wall_ms())

    def _check_commit(self, outcome: Any) -> None:
        """What a client was told is done is in the log."""
        if not isinstance(outcome, CommitReceipt):
            return
        checks = self.world.checks
        place = (outcome.index, outcome.group, outcome.stream, outcome.offset)
        if place not in checks.groups.committed:
            checks.violate("acknowledged but lost", f"{self._member}: {outcome}")
        checks.promised(outcome.index, outcome.term)

    def _until_decided(self, make: Callable[[SimNode], Command], then: Callable[..., None]) -> None:
        """Send it again until somebody answers for sure: twice is as good as once."""

        def ended(outcome: Any) -> None:
            if not isinstance(outcome, (Refused, OutcomeUnknown)) or is_decided(outcome):
                then(outcome)
            elif self.world.is_healing:
                return
            else:
                again = partial(self._until_decided, make, then)
                self.later(self.rng.uniform(0.01, 0.1), again)

        self.call(make, ended)

    # ---- transactions

    def _transact(self, work: Work) -> None:
        self._transactions += 1
        operations = [self._operation() for _ in range(self.rng.choice((1, 2)))]
        key = f"{self._member} {self._transactions}" if self.rng.random() < 0.75 else None
        self._attempt(Whole(operations, work, self._next_offset(work), key))

    def _operation(self) -> Operation:
        number = len(self._history.operations)
        stream = self.rng.choice(SHARED_STREAMS)
        filler = self.rng.randbytes(self.rng.choice((10, 300)))
        values = [b"%d.%d %b" % (number, each, filler) for each in range(self.rng.choice((1, 2)))]
        body = encode_records([Record(value) for value in values])
        operation = Operation(number, stream, values, body, self.world.scheduler.now)
        if self.rng.random() < 0.2:
            operation.if_offset = self.world.checks.acked_ends.get(stream, 0)
        self._history.operations.append(operation)
        return operation

    def _attempt(self, whole: Whole) -> None:
        self.call(partial(self._command, whole), partial(self._ended, whole))

    def _command(self, whole: Whole, node: SimNode) -> Transact:
        wall_ms, work = node.wall_ms(), whole.work
        appends = [_batch(operation, wall_ms) for operation in whole.operations]
        commits = [CommitOffset(work.group, work.stream, whole.offset, work.lease, wall_ms)]
        digest = transaction_digest(appends, commits)
        return Transact(appends, commits, whole.key, digest, wall_ms)

    def _ended(self, whole: Whole, outcome: Any) -> None:
        if isinstance(outcome, TransactionReceipt):
            self._transacted(whole, outcome)
            if whole.key is not None and self.rng.random() < AGAIN_SHARE:
                self.later(self.rng.uniform(0.0, 1.0), partial(self._attempt, whole))
                return
            whole.work.offset = max(whole.work.offset, whole.offset)
            self._go_on(whole.work)
        elif is_decided(outcome):
            if whole.receipt is not None:
                text = f"{self._member}, transaction {whole.key}: {outcome!r}"
                self.world.checks.violate("refused for no reason", text)
            self._end(whole, Outcome.REFUSED)
            self.begin()
        elif isinstance(outcome, OutcomeUnknown) and whole.key is None:
            self._end(whole, Outcome.UNKNOWN)
            self.begin()
        elif not self.world.is_healing:
            self.later(self.rng.uniform(0.01, 0.1), partial(self._attempt, whole))

    def _transacted(self, whole: Whole, receipt: TransactionReceipt) -> None:
        first, whole.receipt = whole.receipt or receipt, receipt
        if first.index != receipt.index:
            text = f"{self._member}: {first}, then {receipt}"
            self.world.checks.violate("another receipt for a repeat", text)
        for operation, part in zip(whole.operations, receipt.appends, strict=True):
            operation.receipt = part
            self.world.checks.acknowledged(part)
        for commit in receipt.commits:
            self._check_commit(commit)
        self._end(whole, Outcome.ACKED)

    def _end(self, whole: Whole, outcome: Outcome) -> None:
        for operation in whole.operations:
            if operation.outcome == Outcome.PENDING:
                operation.outcome = outcome
                operation.ended_at = self.world.scheduler.now
        numbers = [operation.number for operation in whole.operations]
        self.world.trace.add(f"transaction of appends {numbers}: {outcome.value}")


def _batch(operation: Operation, wall_ms: int) -> AppendBatch:
    return AppendBatch(
        operation.stream,
        operation.body,
        len(operation.values),
        max(map(len, operation.values)),
        wall_ms,
        None,
        operation.if_offset,
        None,
        None,
        xxhash.xxh3_128_digest(operation.body),
    )
