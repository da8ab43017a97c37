"""A state machine, its files and its indexes; no cluster, thread or clock around them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from random import Random
from typing import Any, TypeVar

import msgspec

from cute_logger.replication import upstream
from cute_logger.replication.commands import CreateIndex, CreateStream, DropIndex, TrimStream
from cute_logger.replication.errors import OffsetTrimmed
from cute_logger.replication.index_files import IndexFiles
from cute_logger.replication.indexer import Indexer
from cute_logger.replication.jobs import Jobs
from cute_logger.replication.measures import Measures
from cute_logger.replication.search_terms import Asked
from cute_logger.replication.searches import Searches
from cute_logger.replication.sim.disk import SimDisk
from cute_logger.replication.stream import Stream
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.storage.batch import Batch
from cute_logger.storage.errors import DamagedBatch, OffsetOutOfRange
from cute_logger.storage.folder import DataFolder
from cute_logger.storage.record import Record, StoredRecord, encode_records

from .applied import Applied

T = TypeVar("T")
CONFIG: dict[str, int | str | bool] = {"segment.bytes": 600}


class AtOnce:
    """A Runtime whose lanes run a job when it is given to them."""

    def wall_ms(self) -> int:
        return 1_000_000

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Whoever waits for a time asks again."""

    def run(self, lane: object, job: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        future: Future[T] = Future()
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        done(future)

    def token(self) -> str:
        return "token"


class NoDamages:
    def report(self, stream_id: int, damage: DamagedBatch) -> None:
        raise damage

    def is_damaged(self, stream_id: int, offset: int) -> bool:
        return False


class Indexed:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.applied = Applied()
        disk = SimDisk(Random(0))
        disk.is_usable = True
        self._data = DataFolder.open("/data", "n1", disk)
        self.files = StreamFiles(self._data, disk)
        self.is_short = False
        self.now = upstream.now()
        self.open()

    # ---- the process

    def open(self) -> None:
        self.index_files = IndexFiles(self.folder, "incarnation", durable=False)
        self.indexer = Indexer(
            jobs=Jobs(AtOnce(), lambda step, *arguments: step(*arguments)),
            machine=self.applied.machine,
            stream_files=self.files,
            files=self.index_files,
            measures=Measures(),
            damages=NoDamages(),
            is_short=lambda: self.is_short,
        )
        self.searches = Searches(self.indexer, self)

    def crash(self) -> None:
        """What is only in memory is lost."""
        self.index_files.close()

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 1
            self.indexer.poll(self.now, is_synced=True)

    def settle(self) -> None:
        """Until there is nothing to do."""
        self.turn(200)

    # ---- commands

    @property
    def stream(self) -> Stream:
        return self.applied.machine.streams["s"]

    def create(self, **config: int | str | bool) -> None:
        self.applied(CreateStream("s", CONFIG | config, 1))
        self._write()

    def append(self, *records: Record) -> None:
        batch = self.applied.batch(*[b""] * len(records))
        self.applied(msgspec.structs.replace(batch, body=encode_records(list(records))))
        self._write()

    def trim(self, before: int) -> None:
        self.applied(TrimStream("s", before, 1))
        self._write()

    def define(self, name: str, kind: str, on: str) -> Any:
        return self.applied(CreateIndex("s", name, kind, on, 1))

    def drop(self, name: str) -> Any:
        return self.applied(DropIndex("s", name, 1))

    def _write(self) -> None:
        machine = self.applied.machine
        created, machine.created = machine.created, []
        for stream in created:
            self.files.create(stream.id)
        taken = machine.take_unwritten()
        self.files.write(taken)
        machine.written(taken)
        self.files.sync()
        self.files.remove([])

    # ---- searches

    def find(self, index: str, asked: Asked, limit: int = 3) -> list[int]:
        """Offsets of all pages."""
        offsets: list[int] = []
        cursor: str | None = None
        while True:
            records, cursor = drive(
                self.searches.search(
                    self.stream,
                    index,
                    asked,
                    limit=limit,
                    bytes_max=200,
                    cursor=cursor,
                    applied_index=1,
                )
            )
            offsets += [record.offset for record in records]
            if cursor is None:
                return offsets

    def newest(self, key: bytes, as_of: int | None = None) -> StoredRecord:
        return drive(self.searches.newest(self.stream, key, as_of))

    async def batches(self, stream: Stream, offset: int, bytes_max: int) -> list[Batch]:
        recent = self.applied.machine.recent.read(stream.id, offset, bytes_max)
        if offset < stream.log_start_offset:
            raise OffsetTrimmed("trimmed")
        if recent is not None:
            return recent
        try:
            return self.files.read(stream.id, offset, bytes_max)
        except OffsetOutOfRange as error:
            raise OffsetTrimmed("trimmed") from error

    async def run(self, job: Callable[[], T]) -> T:
        return job()

    async def sleep(self, seconds: float) -> None:
        self.turn()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Return what it returns; it never has to wait."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
