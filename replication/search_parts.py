"""What a search is put together from: who reads, a page with room, records looked up by offset."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from ..storage.batch import Batch
from ..storage.errors import CorruptBatch
from ..storage.index_values import Find
from ..storage.record import StoredRecord
from ..storage.value_index import Hit
from .errors import OffsetTrimmed, unknown_stream
from .search_terms import Terms
from .stream import Stream

T = TypeVar("T")

FETCH_BYTES: Final = 32 << 20
"""Read at most, about, to look records of one page up."""
MATCH_BYTES: Final = 2 << 20
"""Of records held at a time: what is compressed may unpack to a lot."""
ON_LOOP_BYTES: Final = 64 << 10
"""What is larger is decoded on a thread."""
ON_LOOP_ROWS: Final = 4_000
"""With more, a few are found on a thread: to pass over this many takes 0.1 ms."""
_CHUNK: Final = 16


class Reader(Protocol):
    """What a search awaits."""

    async def batches(self, stream: Stream, offset: int, bytes_max: int) -> list[Batch]:
        """Whole batches from the one that holds `offset`, one at least; empty if the stream is
        gone. Raises OffsetTrimmed.
        """

    async def run(self, job: Callable[[], T]) -> T:
        """Run `job` on the streams lane."""

    async def sleep(self, seconds: float) -> None: ...


@dataclass(slots=True)
class FilterCounts:
    """Of segments, by all scans since the node started."""

    looked_at: int = 0
    skipped: int = 0


class Part(NamedTuple):
    """Some records, and from where to go on; None at the end."""

    records: list[StoredRecord]
    offset: int | None


@dataclass(slots=True)
class Page:
    """Room for the records of one page."""

    limit: int
    bytes_max: int
    records: list[StoredRecord] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.records) >= self.limit or (self.size >= self.bytes_max and self.size > 0)

    def take(self, record: StoredRecord) -> bool:
        """Add the record; False if there is no room for it."""
        size = size_of(record)
        if self.records and (len(self.records) >= self.limit or self.size + size > self.bytes_max):
            return False
        self.records.append(record)
        self.size += size
        return True


class Fetched:
    """The records of hits, some at a time, each batch read once for its hits among those."""

    def __init__(self, stream: Stream, reader: Reader) -> None:
        self.bytes_left = FETCH_BYTES
        self._stream = stream
        self._reader = reader
        self._numbers = range(0)
        self._records: dict[int, StoredRecord] = {}

    async def get(self, hits: Sequence[Hit], number: int, count: int) -> StoredRecord | None:
        """The record of hit `number`, if it is still there; about `count` of them are wanted."""
        if number not in self._numbers:
            self._numbers = range(number, min(len(hits), number + min(count, _CHUNK)))
            await self._load(sorted(hits[each].offset for each in self._numbers))
        return self._records.get(hits[number].offset)

    async def _load(self, offsets: list[int]) -> None:
        self._records = {}
        while offsets:
            try:
                batches = await self._reader.batches(self._stream, offsets[0], 1)
            except OffsetTrimmed:
                offsets = offsets[1:]
                continue
            if not batches:
                name = self._stream.name
                raise unknown_stream(name)
            batch = batches[0]
            self.bytes_left -= batch.size
            wanted = offsets[: bisect_left(offsets, batch.next_offset)]
            job = partial(_pick, batch, wanted)
            is_small = batch.count <= ON_LOOP_ROWS and not batch.codec
            picked = job() if is_small else await self._reader.run(job)
            self._records.update(picked)
            offsets = offsets[max(1, len(wanted)) :]


def _pick(batch: Batch, wanted: list[int]) -> dict[int, StoredRecord]:
    try:
        records = batch.records_at(wanted)
    except CorruptBatch:
        return {}
    return {record.offset: record for record in records}


def matches(
    batches: Iterable[Batch], offsets: range, find: Find, terms: Terms
) -> tuple[list[StoredRecord], int]:
    """The matches, up to MATCH_BYTES or a record more, and the end of what was looked at."""
    found: list[StoredRecord] = []
    left, reached = MATCH_BYTES, offsets.start
    for batch in batches:
        reached = batch.next_offset
        try:
            body = batch.unpacked()
            if terms.needle is not None and terms.needle not in bytes(body):
                continue
            records = batch.records(body)
        except CorruptBatch:
            continue  # its bytes are those that were appended: nobody can read records from them
        for record in records:
            if record.offset in offsets:
                value = find(record)
                if value is not None and terms.accept(value):
                    found.append(record)
                    left -= size_of(record)
                    if left < 0:
                        return found, record.offset + 1
    return found, reached


def size_of(record: StoredRecord) -> int:
    headers = sum(len(name) + len(text) for name, text in record.headers.items())
    return len(record.key or b"") + len(record.value or b"") + headers
