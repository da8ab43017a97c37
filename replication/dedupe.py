"""Who appended what already: the tables that make a repeat answer the first receipt.

Both tables are part of the replicated state: they change only in apply, expire by log time, and
evict in log order, so every replica remembers and forgets the same.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import msgspec
import xxhash

from ..storage.filesystem import Buffer
from .errors import (
    IdempotencyConflict,
    OutOfOrderSequence,
    ProducerExpired,
    ProducerFenced,
    Refused,
)

PRODUCERS_MAX = 10_000
STREAMS_PER_PRODUCER_MAX = 1_000
PRODUCER_IDLE_MS = 7 * 24 * 3600 * 1000
"""A producer that appended nothing for so long is forgotten."""
WINDOW_BATCHES = 8
"""Newest receipts kept per producer and stream; a producer has fewer batches under way."""
IMPLICIT_ID_LEAD = 1_000_000
"""A producer may bring an id of its own if it is not further ahead of the counter than this."""


def body_digest(body: Buffer) -> bytes:
    """Return what tells the uncompressed `body` of one batch from another's."""
    return xxhash.xxh3_128_digest(body)


class Appended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a receipt is made of."""

    first_offset: int
    count: int
    timestamp: int
    term: int
    index: int
    digest: bytes


class KeyTable:
    """The idempotency keys of one stream, oldest first."""

    def __init__(self, window_ms: int, entries_max: int) -> None:
        self.window_ms = window_ms
        self.entries_max = entries_max
        self.forgotten_until = 0
        """Log time of the newest key that was dropped before its window was over."""
        self._entries: OrderedDict[str, Appended] = OrderedDict()

    def resize(self, window_ms: int, entries_max: int, log_time: int) -> None:
        """Change the bounds. A longer window does not bring back what the shorter one dropped."""
        if window_ms > self.window_ms:
            self.forgotten_until = self.window_start(log_time)
        self.window_ms, self.entries_max = window_ms, entries_max

    def window_start(self, log_time: int) -> int:
        """Keys used before this log time may be forgotten, ms since the epoch."""
        return max(log_time - self.window_ms, self.forgotten_until)

    def find(self, key: str, log_time: int) -> Appended | None:
        known = self._entries.get(key)
        if known is None or known.timestamp < log_time - self.window_ms:
            return None
        return known

    def repeat(self, key: str, digest: bytes, log_time: int) -> Appended | Refused | None:
        """The first use of `key`, a refusal if that was another batch, None if there was none."""
        known = self.find(key, log_time)
        if known is not None and known.digest != digest:
            return IdempotencyConflict(
                "this Idempotency-Key was used for other records", first_offset=known.first_offset
            )
        return known

    def remember(self, key: str, appended: Appended, log_time: int) -> None:
        entries = self._entries
        entries.pop(key, None)
        entries[key] = appended
        while len(entries) > max(self.entries_max, 0):
            _, oldest = entries.popitem(last=False)
            self.forgotten_until = max(self.forgotten_until, oldest.timestamp)
        horizon = log_time - self.window_ms
        while entries and next(iter(entries.values())).timestamp < horizon:
            entries.popitem(last=False)

    def dump(self) -> list[tuple[str, Appended]]:
        return list(self._entries.items())

    def load(self, rows: list[tuple[str, Appended]]) -> None:
        self._entries = OrderedDict(rows)


class Producer:
    """One idempotent producer: its epoch, and the newest batches it sent to each stream."""

    __slots__ = ("epoch", "last_seen", "name", "streams")

    def __init__(self, epoch: int, name: str | None, last_seen: int) -> None:
        self.epoch = epoch
        self.name = name
        self.last_seen = last_seen
        self.streams: dict[int, deque[tuple[int, Appended]]] = {}

    def next_sequence(self, stream_id: int) -> int:
        sent = self.streams.get(stream_id)
        return sent[-1][0] + 1 if sent else 0


class ProducerTable:
    """All producers, the one idle for longest first."""

    def __init__(self) -> None:
        self.next_id = 1
        self._producers: OrderedDict[int, Producer] = OrderedDict()
        self._ids_by_name: dict[str, int] = {}

    def register(self, name: str | None, log_time: int) -> tuple[int, int]:
        """A new producer's id and epoch; a name in use gets its id again with the next epoch,
        fencing the last.
        """
        known = self._ids_by_name.get(name) if name is not None else None
        if known is not None:
            producer = self._producers[known]
            producer.epoch += 1
            producer.streams.clear()
            self._touch(known, producer, log_time)
            return known, producer.epoch
        producer_id = self.next_id
        self._add(producer_id, Producer(0, name, log_time))
        return producer_id, 0

    def _add(self, producer_id: int, producer: Producer) -> None:
        self.next_id = max(self.next_id, producer_id + 1)
        self._producers[producer_id] = producer
        if producer.name is not None:
            self._ids_by_name[producer.name] = producer_id
        self._evict(producer.last_seen)

    def _evict(self, log_time: int) -> None:
        horizon = log_time - PRODUCER_IDLE_MS
        while self._producers:
            oldest_id, oldest = next(iter(self._producers.items()))
            if len(self._producers) <= PRODUCERS_MAX and oldest.last_seen >= horizon:
                break
            del self._producers[oldest_id]
            if oldest.name is not None:
                del self._ids_by_name[oldest.name]

    def _touch(self, producer_id: int, producer: Producer, log_time: int) -> None:
        producer.last_seen = log_time
        self._producers.move_to_end(producer_id)

    def repeat(
        self, stamp: tuple[int, int, int], stream_id: int, digest: bytes
    ) -> Appended | Refused | None:
        """The batch sent with this stamp before, a refusal if it must not be appended, None if it
        is the next.
        """
        producer_id, epoch, sequence = stamp
        producer = self._producers.get(producer_id)
        if producer is None:
            return self._check_unknown(producer_id, sequence)
        if epoch != producer.epoch:
            return ProducerFenced(
                f"the current epoch of producer {producer_id} is {producer.epoch}",
                epoch=producer.epoch,
            )
        if len(producer.streams) >= STREAMS_PER_PRODUCER_MAX and stream_id not in producer.streams:
            return ProducerExpired(f"producer {producer_id} has appended to too many streams")
        expected = producer.next_sequence(stream_id)
        if sequence == expected:
            return None
        for sent, appended in producer.streams.get(stream_id, ()):
            if sent == sequence:
                return self._check_same(appended, digest, sequence)
        return OutOfOrderSequence(
            f"producer {producer_id} has to send sequence {expected} next", expected=expected
        )

    def _check_unknown(self, producer_id: int, sequence: int) -> Refused | None:
        """An id nobody was given yet may begin on its own; one that was forgotten may hide a
        repeat.
        """
        fresh = self.next_id <= producer_id < self.next_id + IMPLICIT_ID_LEAD
        if fresh and sequence == 0:
            return None
        return ProducerExpired(f"producer {producer_id} is not known, or not any more")

    @staticmethod
    def _check_same(appended: Appended, digest: bytes, sequence: int) -> Appended | Refused:
        if appended.digest == digest:
            return appended
        return IdempotencyConflict(
            f"sequence {sequence} was used for other records", first_offset=appended.first_offset
        )

    def remember(
        self, stamp: tuple[int, int, int], stream_id: int, appended: Appended, log_time: int
    ) -> None:
        producer_id, epoch, sequence = stamp
        producer = self._producers.get(producer_id)
        if producer is None:
            producer = Producer(epoch, None, log_time)
            self._add(producer_id, producer)
        sent = producer.streams.setdefault(stream_id, deque(maxlen=WINDOW_BATCHES))
        sent.append((sequence, appended))
        self._touch(producer_id, producer, log_time)

    def forget_stream(self, stream_id: int) -> None:
        for producer in self._producers.values():
            producer.streams.pop(stream_id, None)

    def dump(self) -> list[ProducerRow]:
        return [
            ProducerRow(
                producer_id,
                producer.epoch,
                producer.name,
                producer.last_seen,
                [(stream_id, list(sent)) for stream_id, sent in producer.streams.items()],
            )
            for producer_id, producer in self._producers.items()
        ]

    def load(self, next_id: int, rows: list[ProducerRow]) -> None:
        self.next_id = next_id
        for row in rows:
            producer = Producer(row.epoch, row.name, row.last_seen)
            for stream_id, sent in row.streams:
                producer.streams[stream_id] = deque(sent, maxlen=WINDOW_BATCHES)
            self._producers[row.id] = producer
            if row.name is not None:
                self._ids_by_name[row.name] = row.id


class ProducerRow(msgspec.Struct, frozen=True, array_like=True):
    """A producer as the checkpoint keeps it."""

    id: int
    epoch: int
    name: str | None
    last_seen: int
    streams: list[tuple[int, list[tuple[int, Appended]]]]
