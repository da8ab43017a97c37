"""What clients did, what they were told, and whether the cluster kept its word in the end."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import Receipt

if TYPE_CHECKING:
    from .checks import Checks


class Outcome(enum.Enum):
    PENDING = "pending"
    ACKED = "acked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Operation:
    """One append, with all its retries."""

    number: int
    stream: str
    values: list[bytes]
    body: bytes
    began_at: float
    if_offset: int | None = None
    key: str | None = None
    producer: tuple[int, int, int] | None = None
    outcome: Outcome = Outcome.PENDING
    ended_at: float = 0.0
    receipt: Receipt | None = None
    attempts: int = 0

    @property
    def is_repeatable(self) -> bool:
        """A retry is answered with the first receipt, so that unknown outcomes can be retried."""
        return self.key is not None or self.producer is not None


class History:
    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def acked(self) -> list[Operation]:
        return [each for each in self.operations if each.outcome == Outcome.ACKED]

    def check(self, checks: Checks, contents: dict[str, list[bytes]]) -> None:
        """Compare with the records that the streams hold in the end, by stream."""
        places: dict[str, dict[bytes, list[int]]] = {}
        for name, records in contents.items():
            places[name] = defaultdict(list)
            for offset, value in enumerate(records):
                places[name][value].append(offset)
        for operation in self.operations:
            if operation.stream in contents:
                found = places[operation.stream].get(operation.values[0], [])
                self._check_one(checks, operation, found, contents[operation.stream])
        for name, of_stream in places.items():
            self._check_order(checks, name, of_stream)

    def _check_one(
        self, checks: Checks, operation: Operation, found: list[int], records: list[bytes]
    ) -> None:
        name = f"append {operation.number} to {operation.stream}"
        if len(found) > 1:
            checks.violate("duplicate", f"{name} is there at {found}")
        if operation.outcome == Outcome.REFUSED and found:
            checks.violate("refused but written", f"{name} is at {found}")
        if operation.outcome != Outcome.ACKED:
            return
        receipt = operation.receipt
        assert receipt is not None
        first, last = receipt.first_offset, receipt.last_offset
        if records[first : last + 1] != operation.values:
            text = f"{name}, acknowledged at {operation.ended_at:.6f} as {first}, is at {found}"
            checks.violate("acknowledged but lost", text)
        if operation.if_offset not in (None, first):
            text = f"{name} is at {first}, only allowed at {operation.if_offset}"
            checks.violate("condition ignored", text)

    def _check_order(self, checks: Checks, stream: str, places: dict[bytes, list[int]]) -> None:
        """What began after another append was acknowledged lies behind it."""
        events: list[tuple[float, int, int, Operation]] = []
        for operation in self.operations:
            found = places.get(operation.values[0]) if operation.stream == stream else None
            if found:
                events.append((operation.began_at, 0, found[0], operation))
                if operation.outcome == Outcome.ACKED:
                    events.append((operation.ended_at, 1, found[0], operation))
        newest = -1
        for at, is_end, offset, operation in sorted(events, key=lambda event: event[:3]):
            if is_end:
                newest = max(newest, offset)
            elif offset < newest:
                text = f"append {operation.number}, begun at {at:.6f}, is at {offset} in {stream}"
                checks.violate("order", f"{text}, before {newest}")
