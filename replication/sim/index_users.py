"""Clients that define indexes and search: what is found is what was written.

A stream of its own, with keys and JSON values, trimmed now and then; its indexes come, change and
go while nodes crash. A search is driven as `Replica` drives it, page after page, and compared with
all that was committed: everything found is right, in order and there once, and nothing is missing
that was there before it began and is there still.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from functools import partial
from random import Random
from typing import Any, TypeVar

import msgspec
import xxhash

from ...storage.batch import Batch
from ...storage.errors import DamagedBatch, OffsetOutOfRange
from ...storage.index_values import encode, source_of
from ...storage.record import Record, StoredRecord, decode_rows, encode_records
from .. import upstream
from ..commands import AppendBatch, Command, CreateIndex, CreateStream, DropIndex, TrimStream
from ..errors import BadSearch, NotReady, OffsetTrimmed, UnknownIndex, UnknownKey, UnknownStream
from ..runtime import Lane
from ..search_terms import Asked, Terms
from ..searches import Searches
from ..stream import Stream
from .clients import Caller
from .node import Process, SimNode
from .world import World

T = TypeVar("T")

STREAM = "indexed"
CONFIG: dict[str, int | str | bool] = {"segment.bytes": 1 << 10, "retention.records": 150}
NAMES = ("i", "j")
TERMS = {
    "key": (b"k", b"k1", b"k3", b"k5", b"l"),
    "value:/n": (b"1", b"2.5", b"%d" % (2**60), b"%d" % (2**60 + 1), b"%d" % (2**60 + 3)),
    "value:/t": (b"", b"t", b"tt", b"ttt", b"u"),
    "header:h": (b"", b"x", b"y"),
}
KEYS = 7
WRITE_EVERY_S = 0.15
SEARCH_EVERY_S = 0.15
PAGE_BYTES = 400
GIVES_UP = (NotReady, OffsetTrimmed, UnknownIndex, UnknownStream, BadSearch)
"""What a search may end with: the stream and its indexes change meanwhile."""


class IndexUser(Caller):
    """Appends, defines and trims; its searches run on any node."""

    def __init__(self, world: World, rng: Random) -> None:
        super().__init__(world, rng)
        self._searcher = Searcher(world, rng)

    def begin(self) -> None:
        self._write()
        self._searcher.begin()

    def _write(self) -> None:
        if not self.world.is_healing:
            makes = (self._creation, self._filling, self._definition, self._drop, self._trim)
            (make,) = self.rng.choices(makes, (2, 20, 4, 1, 1))
            self.call(make, self._written)

    def _written(self, outcome: Any) -> None:
        self.later(self.rng.expovariate(1 / WRITE_EVERY_S), self._write)

    def _wall_ms(self, node: SimNode) -> int:
        return self.world.wall_ms() + node.wall_offset_ms

    def _creation(self, node: SimNode) -> Command:
        return CreateStream(STREAM, CONFIG, self._wall_ms(node))

    def _definition(self, node: SimNode) -> Command:
        rng = self.rng
        kind = rng.choice(("btree", "btree", "bloom"))
        name, on = rng.choice(NAMES), rng.choice(tuple(TERMS))
        return CreateIndex(STREAM, name, kind, on, self._wall_ms(node))

    def _drop(self, node: SimNode) -> Command:
        return DropIndex(STREAM, self.rng.choice(NAMES), self._wall_ms(node))

    def _trim(self, node: SimNode) -> Command:
        return TrimStream(STREAM, self.rng.randrange(200), self._wall_ms(node))

    def _filling(self, node: SimNode) -> Command:
        records = [self._record() for _ in range(self.rng.choice((1, 3, 10)))]
        body = encode_records(records)
        digest = xxhash.xxh3_128_digest(body)
        now = self._wall_ms(node)
        return AppendBatch(STREAM, body, len(records), 200, now, None, None, None, None, digest)

    def _record(self) -> Record:
        rng = self.rng
        value = {"n": rng.choice((1, 2.5, 2**60 + rng.randrange(3))), "t": "t" * rng.randrange(4)}
        return Record(
            None if rng.random() < 0.1 else json.dumps(value).encode(),
            b"k%d" % rng.randrange(KEYS),
            {"h": "x"} if rng.random() < 0.5 else {},
        )


class Searcher:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng

    def begin(self) -> None:
        world = self._world
        if world.is_healing:
            return
        world.scheduler.after(self._rng.expovariate(1 / SEARCH_EVERY_S), self.begin)
        node = world.nodes[self._rng.choice(world.node_ids)]
        node.enter(partial(self._look, node))

    def _look(self, node: SimNode) -> None:
        process = node.process
        assert process is not None
        stream = process.recovered.machine.streams.get(STREAM)
        if not process.core.synced or stream is None:
            return
        name, limit = self._rng.choice(NAMES), self._rng.choice((1, 5, 50))
        definition = stream.indexes.get(name)
        if definition is None or self._rng.random() < 0.2:
            key = b"k%d" % self._rng.randrange(KEYS + 1)
            drive(self._newest(node, process, stream, key))
            return
        asked = self._asked(definition.on)
        if definition.kind == "btree" or asked.eq is not None:
            drive(self._search(node, process, stream, name, asked, limit))

    def _asked(self, on: str) -> Asked:
        rng = self._rng
        low, high = sorted(rng.choices(TERMS[on], k=2))
        shape, is_descending = rng.randrange(4), rng.random() < 0.5
        if shape == 0:
            return Asked(ge=low, lt=high, is_descending=is_descending)
        if shape == 1:
            return Asked(prefix=low, is_descending=is_descending)
        return Asked(eq=low, is_descending=is_descending)

    async def _search(
        self, node: SimNode, process: Process, stream: Stream, name: str, asked: Asked, limit: int
    ) -> None:
        definition, end = stream.indexes[name], stream.next_offset
        searches = Searches(process.engine.indexer, SimReader(process))
        found: list[StoredRecord] = []
        cursor: str | None = None
        try:
            while True:
                records, cursor = await searches.search(
                    stream,
                    name,
                    asked,
                    limit=limit,
                    bytes_max=PAGE_BYTES,
                    cursor=cursor,
                    applied_index=process.core.applied_index(),
                )
                found += records
                if cursor is None:
                    break
        except GIVES_UP as error:
            self._world.trace.add(f"{node.id} gives up a search: {error.code}")
            return
        self._world.checks.reads += 1
        self._check(node, stream, definition.on, asked, end, found)

    def _check(
        self,
        node: SimNode,
        stream: Stream,
        on: str,
        asked: Asked,
        end: int,
        found: list[StoredRecord],
    ) -> None:
        source = source_of(on)
        terms = Terms(asked, source)
        written = {record.offset: record for record in self._written(stream)}
        text = f"{node.id}: {asked} on {on} of stream {stream.id} to {end}"
        places = []
        for record in found:
            value = source.find(record)
            is_it = written.get(record.offset) == msgspec.structs.replace(record, timestamp=0)
            if not is_it or value is None or not terms.accept(value):
                self._world.checks.violate("wrong search", f"{text} finds {record}")
                return
            places.append((b"" if asked.eq is not None else encode(value), record.offset))
        if places != sorted(set(places), reverse=asked.is_descending):
            self._world.checks.violate("search out of order", f"{text} finds {places}")
        offsets = {record.offset for record in found}
        for record in written.values():
            value = source.find(record)
            is_wanted = value is not None and terms.accept(value)
            is_due = stream.log_start_offset <= record.offset < end
            if is_wanted and is_due and record.offset not in offsets:
                self._world.checks.violate("search misses", f"{text} lacks {record.offset}")
                return

    async def _newest(self, node: SimNode, process: Process, stream: Stream, key: bytes) -> None:
        end = stream.next_offset
        searches = Searches(process.engine.indexer, SimReader(process))
        found: int | None = None
        try:
            found = (await searches.newest(stream, key, None)).offset
        except UnknownKey:
            pass
        except GIVES_UP:
            return
        self._world.checks.reads += 1
        records = [record for record in self._written(stream) if record.offset < end]
        newest = max(
            (record for record in records if record.key == key),
            key=lambda record: record.offset,
            default=None,
        )
        if newest is not None and newest.offset < stream.log_start_offset:
            return
        expected = None if newest is None or newest.value is None else newest.offset
        if found != expected:
            text = f"{node.id}: {key!r} of stream {stream.id} is at {expected}, found at {found}"
            self._world.checks.violate("wrong key", text)

    def _written(self, stream: Stream) -> Iterator[StoredRecord]:
        """All records of the stream that were ever committed."""
        for first, body in self._world.checks.bodies_of(stream.id):
            for offset, (key, value, headers, _) in enumerate(decode_rows(body), first):
                yield StoredRecord(offset, 0, key, value, headers or {})


class SimReader:
    """What a search awaits, of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def batches(self, stream: Stream, offset: int, bytes_max: int) -> list[Batch]:
        recovered = self._process.recovered
        if offset < stream.log_start_offset:
            raise OffsetTrimmed(f"offset {offset} was trimmed")
        recent = recovered.machine.recent.read(stream.id, offset, bytes_max)
        if recent is not None:
            return recent

        def job() -> list[Batch] | Exception:
            try:
                return recovered.stream_files.read(stream.id, offset, bytes_max)
            except (OffsetOutOfRange, DamagedBatch) as error:
                return error

        while True:
            found = await self.run(job)
            if isinstance(found, OffsetOutOfRange):
                raise OffsetTrimmed(f"offset {offset} was trimmed")
            if isinstance(found, DamagedBatch):
                self._process.engine.repairs.report(stream.id, found)
                await self.sleep(0.1)
            else:
                assert isinstance(found, list)
                return found

    async def run(self, job: Callable[[], T]) -> T:
        runtime = self._process.runtime

        def start(then: Callable[[Any], None]) -> None:
            def done(future: Future[T]) -> None:
                then(future.result())

            runtime.run(Lane.STREAMS, job, done)

        found: T = await Answer(start)
        return found

    async def sleep(self, seconds: float) -> None:
        at = upstream.now() + seconds
        await Answer(lambda then: self._process.runtime.call_at(at, partial(then, None)))


class Answer:
    """What a coroutine that `drive` runs may await: `start` is told whom to call with it."""

    def __init__(self, start: Callable[[Callable[[Any], None]], None]) -> None:
        self.start = start

    def __await__(self) -> Generator[Answer, Any, Any]:
        return (yield self)


def drive(work: Coroutine[Answer, Any, None]) -> None:
    """Run a coroutine without an event loop, from answer to answer."""

    def step(answer: Any) -> None:
        try:
            work.send(answer).start(step)
        except StopIteration:
            return

    step(None)
