"""Clients that append on the condition that a key is unchanged since they last saw it: whoever
succeeds has to be the only one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import xxhash

from ...storage.record import Record, decode_rows, encode_records
from ..coalescer import Pending
from ..commands import AppendBatch, Command, CreateStream
from ..conditions import guard_of
from ..errors import ConditionFailed, OutcomeUnknown, Refused
from ..guards import Placed, Verdict
from ..searches import Searches
from ..types import NoRecord, Receipt
from .clients import AGAIN_SHARE, Caller
from .index_users import SimReader, drive
from .node import SimNode
from .world import World

STREAM = "claims"
CONFIG: dict[str, int | str | bool] = {"segment.bytes": 2 << 10}
KEYS = (b"p", b"q")
PLAIN_SHARE = 0.2
"""So many appends come without a condition, and take keys away."""
CLAIM_EVERY_S = 0.2


@dataclass(slots=True)
class Claim:
    value: bytes
    key: bytes
    since: int | None
    """None: without a condition."""
    once: str | None
    """Idempotency key: such a claim is sent again until its fate is known."""
    is_done: bool = False


class Claimer(Caller):
    def __init__(self, world: World, rng: Random, number: int) -> None:
        super().__init__(world, rng)
        self._number = number
        self._seen: dict[bytes, int] = {}
        self._claims: list[Claim] = []

    def begin(self) -> None:
        self.call(self._creation, self._created)

    def _creation(self, node: SimNode) -> Command:
        return CreateStream(STREAM, CONFIG, node.wall_ms())

    def _created(self, outcome: Any) -> None:
        if isinstance(outcome, tuple):
            self._next()
        else:
            self.later(0.1, self.begin)

    def _next(self) -> None:
        self.later(self.rng.expovariate(1 / CLAIM_EVERY_S), self._claim)

    def _claim(self) -> None:
        if self.world.is_healing:
            return
        key, name = self.rng.choice(KEYS), f"{self._number}.{len(self._claims)}"
        since = None if self.rng.random() < PLAIN_SHARE else self._seen.get(key, -1)
        once = name if self.rng.random() < 0.5 else None
        claim = Claim(name.encode(), key, since, once)
        self._claims.append(claim)
        self._attempt(claim)

    def _attempt(self, claim: Claim) -> None:
        self.call(partial(self._command, claim), partial(self._ended, claim))

    def _command(self, claim: Claim, node: SimNode) -> Command:
        body = encode_records([Record(claim.value, claim.key)])
        digest = xxhash.xxh3_128_digest(body)
        return AppendBatch(
            STREAM, body, 1, 10, node.wall_ms(), None, None, None, claim.once, digest
        )

    def _submit(
        self, node: SimNode, make: Callable[[SimNode], Command], answer: Callable[[Any], None]
    ) -> None:
        command = make(node)
        if not isinstance(command, AppendBatch):
            super()._submit(node, make, answer)
            return
        ((_, value, _, _),) = decode_rows(command.body)
        (claim,) = (each for each in self._claims if each.value == value)
        drive(self._submit_claim(node, command, claim, answer))

    async def _submit_claim(
        self, node: SimNode, command: AppendBatch, claim: Claim, answer: Callable[[Any], None]
    ) -> None:
        process = node.process
        assert process is not None
        machine, core = process.recovered.machine, process.core
        guard = None
        try:
            if claim.since is not None:
                guard = await guard_of(
                    machine,
                    Searches(process.engine.indexer, SimReader(process)),
                    command,
                    [Placed(STREAM, NoRecord(claim.key, claim.since), None)],
                    knows_all=lambda: core.is_leader() and machine.applied_term == core.term(),
                )
        except Refused as refusal:
            answer(refusal)
            return
        if node.process is process:
            submitted = node.submit(command, answer, guard)
            if not isinstance(submitted, Pending):
                answer(submitted)

    def _ended(self, claim: Claim, outcome: Any) -> None:
        if isinstance(outcome, Receipt):
            claim.is_done = True
            self._check(claim, outcome)
            self._seen[claim.key] = outcome.first_offset
            if claim.once is not None and self.rng.random() < AGAIN_SHARE:
                self._attempt(claim)
                return
        elif isinstance(outcome, ConditionFailed):
            if claim.is_done:
                self.world.checks.violate("another answer to a repeat", f"{claim}: {outcome!r}")
            self._seen[claim.key] = int(outcome.facts["actual"] or 0)
        elif outcome is Verdict.LOOK_AGAIN or (
            claim.once is not None or not isinstance(outcome, OutcomeUnknown)
        ):
            if not self.world.is_healing:
                self.later(0.05, partial(self._attempt, claim))
            return
        self._next()

    def _check(self, claim: Claim, receipt: Receipt) -> None:
        """The condition held, and it is there once."""
        nodes = (node for node in self.world.nodes.values() if node.process is not None)
        machines = (node.process.recovered.machine for node in nodes if node.process is not None)
        stream_id = next(each.streams[STREAM].id for each in machines if STREAM in each.streams)
        for offset, body in self.world.checks.bodies_of(stream_id):
            ((key, value, _, _),) = decode_rows(body)
            text = f"{claim.value!r} at {receipt.first_offset}, unchanged since {claim.since}"
            if value == claim.value and offset != receipt.first_offset:
                self.world.checks.violate("claimed twice", f"{text}, and at {offset}")
            is_between = claim.since is not None and claim.since < offset < receipt.first_offset
            if key == claim.key and is_between:
                text = f"{text}: {value!r} at {offset}"
                self.world.checks.violate("condition did not hold", text)
