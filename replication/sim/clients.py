"""Clients: they append through whoever leads, with retries, and read on any node.

The way between a client and a node takes a moment and breaks when the node dies: the client does
not know then what became of its request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import xxhash

from ...storage.codec import CODEC_NONE, pack
from ...storage.record import Record, encode_records
from ..coalescer import Pending
from ..commands import (
    AppendBatch,
    Command,
    CreateStream,
    DeleteStream,
    RegisterProducer,
    TrimStream,
)
from ..errors import (
    ConditionFailed,
    NotLeader,
    OutcomeUnknown,
    Refused,
    StreamExists,
    UnknownStream,
)
from ..types import Receipt
from .history import History, Operation, Outcome
from .node import SimNode
from .world import World

SHARED_STREAMS = ("a", "b", "c")
OWN_STREAM = "d"
"""Only appended to on the condition that nobody else did, by few clients."""
KEYED_STREAM = "k"
"""Compacted all the time: `keyed.py`."""
STREAMS = (*SHARED_STREAMS, OWN_STREAM)
"""Streams that stay; appends to them are followed to the end."""
PASSING_STREAMS = ("x", "y")
"""Streams that are created, trimmed and deleted all the time."""
CONFIG: dict[str, int | str | bool] = {"segment.bytes": 12 << 10}
KEYED_CONFIG: dict[str, int | str | bool] = {
    "segment.bytes": 3 << 10,
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": 1_500,
}
TIMEOUT_S = 1.5
PASSING_CONFIG: dict[str, int | str | bool] = {"segment.bytes": 2 << 10, "retention.records": 12}
CONFIGS = {
    KEYED_STREAM: KEYED_CONFIG,
    PASSING_STREAMS[0]: PASSING_CONFIG,
    PASSING_STREAMS[1]: {**KEYED_CONFIG, **PASSING_CONFIG, "cleanup.policy": "compact,delete"},
}
AGAIN_SHARE = 0.1
"""So many acknowledged appends are sent once more, as if the answer had been lost."""

Then = Callable[[Any], None]


class Caller:
    """Sends one command to whoever leads, and again until somebody answers."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self._guess = rng.choice(world.node_ids)

    def delay(self) -> float:
        return 0.0002 + self.rng.expovariate(1 / 0.0005)

    def later(self, delay_s: float, step: Callable[[], None]) -> None:
        self.world.scheduler.after(delay_s, step)

    def call(self, make: Callable[[SimNode], Command], then: Then) -> None:
        """One attempt; `then` hears a result, a refusal, or OutcomeUnknown, exactly once."""
        node = self.world.nodes[self._guess]
        answered: list[bool] = []

        def answer(outcome: Any) -> None:
            if not answered:
                answered.append(True)
                self._learn(outcome)
                then(outcome)

        self.later(self.delay(), partial(self._arrive, node, node.life, make, answer))

    def _arrive(
        self, node: SimNode, life: int, make: Callable[[SimNode], Command], answer: Then
    ) -> None:
        if not node.is_up or node.life != life:
            answer(Refused("the connection was refused"))
            return
        unknown = OutcomeUnknown("no answer")
        self.later(TIMEOUT_S, partial(answer, unknown))
        node.enter(partial(self._submit, node, make, answer), life)

    def _submit(self, node: SimNode, make: Callable[[SimNode], Command], answer: Then) -> None:
        command = make(node)
        submitted = node.submit(command, answer)
        if not isinstance(submitted, Pending):
            answer(submitted)

    def _learn(self, outcome: Any) -> None:
        if isinstance(outcome, NotLeader):
            self._guess = outcome.leader
        elif isinstance(outcome, (Refused, OutcomeUnknown)):
            self._guess = self.rng.choice(self.world.node_ids)


class Appender(Caller):
    """Appends batches of its own, one after the other or a few at a time."""

    def __init__(self, world: World, rng: Random, history: History, number: int) -> None:
        super().__init__(world, rng)
        self._history = history
        self._number = number
        self._kind = ("key", "producer", "plain", "condition")[number % 4]
        self._compresses = world.seed % 4 == 2
        """Now so, now otherwise, a repeat too: as nodes of other settings and versions would."""
        self._producer: tuple[int, int] | None = None
        self._sequences = dict.fromkeys(STREAMS, 0)

    def begin(self) -> None:
        if self._kind == "producer" and self._producer is None:
            self.call(self._register, self._registered)
        else:
            self._next()

    def _register(self, node: SimNode) -> Command:
        return RegisterProducer(f"p{self._number}", wall_ms_of(self.world, node))

    def _registered(self, outcome: Any) -> None:
        if isinstance(outcome, tuple):
            self._producer = outcome
            self._next()
        else:
            self.later(0.1, self.begin)

    def _next(self) -> None:
        """Think, then append; several at once now and then, where order does not matter."""
        if self.world.is_healing:
            return
        burst = self.rng.choice((1, 1, 1, 6)) if self._kind in ("key", "plain") else 1
        waiting = [burst]

        def one_ended() -> None:
            waiting[0] -= 1
            if not waiting[0]:
                self.later(self.rng.expovariate(1 / self.world.mode.think_s), self._next)

        for _ in range(burst):
            self._attempt(self._operation(), one_ended)

    def _operation(self) -> Operation:
        number = len(self._history.operations)
        streams = (OWN_STREAM,) if self._kind == "condition" else SHARED_STREAMS
        stream = self.rng.choice(streams)
        size = self.rng.choice((10, 100, 100, 400, 3000))
        count = self.rng.choice((1, 1, 2, 3))
        filler = self.rng.randbytes(8) * (size // 8)
        values = [b"%d.%d %b" % (number, each, filler) for each in range(count)]
        body = encode_records([Record(value) for value in values])
        operation = Operation(number, stream, values, body, self.world.scheduler.now)
        if self._kind == "key" or (self._kind == "condition" and self.rng.random() < 0.5):
            operation.key = f"key {number}"
        if self._kind == "producer":
            assert self._producer is not None
            operation.producer = (*self._producer, self._sequences[stream])
            self._sequences[stream] += 1
        if self._kind == "condition":
            operation.if_offset = self.world.checks.acked_ends.get(stream, 0)
        self._history.operations.append(operation)
        return operation

    def _attempt(self, operation: Operation, then: Callable[[], None]) -> None:
        operation.attempts += 1
        self.call(partial(self._command, operation), partial(self._ended, operation, then))

    def _command(self, operation: Operation, node: SimNode) -> Command:
        wanted = (operation.number + operation.attempts) % 3 if self._compresses else CODEC_NONE
        codec, body = pack(wanted, operation.body)
        return AppendBatch(
            operation.stream,
            body,
            len(operation.values),
            max(map(len, operation.values)),
            wall_ms_of(self.world, node),
            None,
            operation.if_offset,
            operation.producer,
            operation.key,
            xxhash.xxh3_128_digest(operation.body),
            codec,
        )

    def _ended(self, operation: Operation, then: Callable[[], None], outcome: Any) -> None:
        if isinstance(outcome, Receipt):
            self._acked(operation, outcome)
            if operation.is_repeatable and self.rng.random() < AGAIN_SHARE:
                self.later(self.rng.uniform(0.0, 1.0), partial(self._attempt, operation, then))
                return
        elif isinstance(outcome, OutcomeUnknown) and not operation.is_repeatable:
            self._end(operation, Outcome.UNKNOWN)
        elif self._is_final(outcome):
            is_repeat = operation.outcome == Outcome.ACKED
            if is_repeat or not isinstance(outcome, ConditionFailed):
                text = f"append {operation.number}: {outcome!r}"
                self.world.checks.violate("refused for no reason", text)
            self._end(operation, Outcome.REFUSED)
        else:
            self.later(self.rng.uniform(0.01, 0.1), partial(self._attempt, operation, then))
            return
        then()

    def _acked(self, operation: Operation, receipt: Receipt) -> None:
        first, operation.receipt = operation.receipt or receipt, receipt
        if (first.first_offset, first.index) != (receipt.first_offset, receipt.index):
            text = f"append {operation.number}: {first}, then {receipt}"
            self.world.checks.violate("another receipt for a repeat", text)
        if operation.outcome == Outcome.PENDING:
            self._end(operation, Outcome.ACKED)
        self.world.checks.acknowledged(receipt)

    def _end(self, operation: Operation, outcome: Outcome) -> None:
        operation.outcome = outcome
        operation.ended_at = self.world.scheduler.now
        self.world.trace.add(f"append {operation.number}: {outcome.value} {operation.receipt}")

    def _is_final(self, outcome: Any) -> bool:
        """A refusal that trying again cannot change."""
        if isinstance(outcome, UnknownStream):
            return outcome.facts["stream"] in self.world.checks.created
        return not isinstance(outcome, OutcomeUnknown) and is_decided(outcome)


class StreamOwner(Caller):
    """Creates the streams that stay, then creates, fills, trims and deletes others."""

    def begin(self) -> None:
        self._create_all([KEYED_STREAM, *STREAMS])

    def _create_all(self, names: list[str]) -> None:
        if not names:
            self._pass()
            return

        def created(outcome: Any) -> None:
            if isinstance(outcome, tuple):
                self.world.checks.created.add(names[0])
                self._create_all(names[1:])
            elif isinstance(outcome, StreamExists):
                self.world.checks.violate("refused for no reason", repr(outcome))
            else:
                self.later(0.05, partial(self._create_all, names))

        self.call(partial(self._creation, names[0]), created)

    def _creation(self, name: str, node: SimNode) -> Command:
        config = CONFIGS.get(name, CONFIG)
        return CreateStream(name, config, wall_ms_of(self.world, node))

    def _deletion(self, name: str, node: SimNode) -> Command:
        return DeleteStream(name, wall_ms_of(self.world, node))

    def _trim(self, name: str, node: SimNode) -> Command:
        return TrimStream(name, self.rng.randrange(20), wall_ms_of(self.world, node))

    def _filling(self, name: str, node: SimNode) -> Command:
        value = self.rng.randbytes(20) * 20
        body = encode_records([Record(value, b"key %d" % self.rng.randrange(3))])
        digest = xxhash.xxh3_128_digest(body)
        wall_ms = wall_ms_of(self.world, node)
        return AppendBatch(name, body, 1, len(value), wall_ms, None, None, None, None, digest)

    def _pass(self) -> None:
        if self.world.is_healing:
            return
        name = self.rng.choice(PASSING_STREAMS)
        (make,) = self.rng.choices(
            (self._creation, self._filling, self._trim, self._deletion), (2, 10, 1, 1)
        )
        self.call(partial(make, name), self._passed)

    def _passed(self, outcome: Any) -> None:
        self.later(self.rng.expovariate(1 / 0.2), self._pass)


def is_decided(outcome: Any) -> bool:
    """Apply itself refused, and would again."""
    return isinstance(outcome, Refused) and type(outcome) is not Refused and not outcome.retriable


def wall_ms_of(world: World, node: SimNode) -> int:
    return world.wall_ms() + node.wall_offset_ms
