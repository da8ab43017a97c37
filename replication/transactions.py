"""Several appends and commits in one entry: all of them, or none and a word which one stood in the
way.

Every part is judged before any is carried out, by what the parts before it would have made of the
state. The table remembers what was done under which Idempotency-Key, as `dedupe` does for streams:
it changes in apply only and forgets by log time and in log order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from .commands import AppendBatch, Transact
from .dedupe import Appended, ProducerTable
from .errors import IdempotencyConflict, OutOfOrderSequence, Refused, unknown_stream
from .groups import GroupTable
from .stream import Stream

WINDOW_MS = 24 * 3600 * 1000
REMEMBERED_PARTS_MAX = 300_000
"""Appends and commits of all transactions remembered, each of which counts as two more: 100,000 of
the smallest.
"""


class Transacted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the receipt of a transaction is made of, beside the command itself: a repeat brings
    that again.
    """

    log_time: int
    term: int
    index: int
    digest: bytes
    first_offsets: tuple[int, ...]
    timestamps: tuple[int, ...]
    """Of the appends, as are the offsets."""
    high_watermarks: tuple[int, ...]
    """Of the commits' streams, right after."""

    @property
    def parts(self) -> tuple[int, int]:
        """How many appends and commits there were."""
        return len(self.first_offsets), len(self.high_watermarks)

    @property
    def weight(self) -> int:
        return 2 + sum(self.parts)


Row = tuple[str, Transacted]


class TransactionTable:
    """The transactions that came with an Idempotency-Key, oldest first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Transacted] = OrderedDict()
        self._weight = 0

    def repeat(self, command: Transact, log_time: int) -> Transacted | Refused | None:
        """The first use of its key, a refusal if that was another one, None if there was none."""
        known = self._entries.get(command.key) if command.key is not None else None
        if known is None or known.log_time < log_time - WINDOW_MS:
            return None
        parts = (len(command.appends), len(command.commits))
        if known.digest != command.digest or known.parts != parts:
            return IdempotencyConflict("this Idempotency-Key was used for another transaction")
        return known

    def remember(self, key: str, done: Transacted) -> None:
        entries = self._entries
        replaced = entries.pop(key, None)
        self._weight += done.weight - (replaced.weight if replaced is not None else 0)
        entries[key] = done
        horizon = done.log_time - WINDOW_MS
        while entries and (
            self._weight > REMEMBERED_PARTS_MAX or self._oldest().log_time < horizon
        ):
            self._weight -= entries.popitem(last=False)[1].weight

    def _oldest(self) -> Transacted:
        return next(iter(self._entries.values()))

    def dump(self) -> list[Row]:
        return list(self._entries.items())

    def load(self, rows: list[Row]) -> None:
        for key, done in rows:
            self._entries[key] = done
            self._weight += done.weight


class Trial:
    """A transaction as it would go, part by part, with nothing changed."""

    def __init__(
        self, streams: Mapping[str, Stream], producers: ProducerTable, groups: GroupTable
    ) -> None:
        self._streams = streams
        self._producers = producers
        self._groups = groups
        self._next_offsets: dict[str, int] = {}
        self._sequences: dict[tuple[int, int, int], int] = {}
        """Sequence of the newest batch by producer, epoch and stream."""

    def refusal_of(self, command: Transact) -> Refused | None:
        """Why the whole is refused; its facts `part` and `part_index` name what is to blame."""
        for at, append in enumerate(command.appends):
            refusal = self._append(append)
            if refusal is not None:
                return blame(refusal, "appends", at)
        for at, commit in enumerate(command.commits):
            stream = self._streams.get(commit.stream)
            if stream is None:
                return blame(unknown_stream(commit.stream), "commits", at)
            refusal = self._groups.refusal_of(commit, self._next_offset(stream))
            if refusal is not None:
                return blame(refusal, "commits", at)
        return None

    def _next_offset(self, stream: Stream) -> int:
        return self._next_offsets.get(stream.name, stream.next_offset)

    def _append(self, append: AppendBatch) -> Refused | None:
        stream = self._streams.get(append.stream)
        if stream is None:
            return unknown_stream(append.stream)
        refusal = self._sequence(append, stream)
        next_offset = self._next_offset(stream)
        refusal = refusal or stream.refusal_of(append, next_offset)
        self._next_offsets[stream.name] = next_offset + append.count
        return refusal

    def _sequence(self, append: AppendBatch, stream: Stream) -> Refused | None:
        if append.producer is None:
            return None
        producer_id, epoch, sequence = append.producer
        before = self._sequences.get((producer_id, epoch, stream.id))
        self._sequences[producer_id, epoch, stream.id] = sequence
        if before is not None:
            if sequence == before + 1:
                return None
            return OutOfOrderSequence(
                f"producer {producer_id} has to send sequence {before + 1} next",
                expected=before + 1,
            )
        repeat = self._producers.repeat(append.producer, stream.id, append.digest)
        if isinstance(repeat, Appended):
            # Whether the rest was done with it nobody knows: a whole is known by its key only.
            return IdempotencyConflict(
                f"sequence {sequence} was appended before", first_offset=repeat.first_offset
            )
        return repeat


def blame(refusal: Refused, part: str, at: int) -> Refused:
    refusal.detail = f"{part}[{at}]: {refusal.detail}"
    refusal.facts |= {"part": part, "part_index": at}
    return refusal
