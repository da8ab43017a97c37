"""A snapshot that arrives piece by piece, damaged on the way: `replication.catchup`, `install`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any, cast

from cute_logger.replication.catchup import Catchup
from cute_logger.replication.commands import CreateStream, encode_commands
from cute_logger.replication.config import Limits, ReplicaConfig
from cute_logger.replication.install import Staging
from cute_logger.replication.jobs import Jobs, check
from cute_logger.replication.messages import Message, SnapshotData, SnapshotOffer, SnapshotRead
from cute_logger.replication.recovery import Recovered, recover
from cute_logger.replication.runtime import Lane
from cute_logger.replication.snapshot import Snapshot
from cute_logger.storage import checkpoint
from cute_logger.storage.folder import DataFolder
from cute_logger.storage.names import store_path
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk
from support.applied import Applied

_DATA = "/data"
_CONFIG = ReplicaConfig("n1", _DATA, ("n1", 1), {}, limits=Limits(wal_segment_bytes=1 << 16))
_HERE, _THERE = 5, 12
_STEPS_MAX = 400


def target(data: bytes) -> None:
    choices = Choices(data)
    here = Disk()
    for path, content in _grown(_HERE).items():
        here.put(path, content)
    node = recover(_CONFIG, here)
    fetch = _Fetch(here, node, choices)
    fetch.offer()
    fetch.run()
    node.close()
    here.end_process()
    _check(here, fetch)


def _check(here: Disk, fetch: _Fetch) -> None:
    """The next start finds the leader's state or the old one, whole."""
    node = recover(_CONFIG, here)
    index = node.machine.applied_index
    assert index == _THERE if fetch.is_done else index in (_HERE, _THERE)
    next_offset = node.machine.streams["s"].next_offset
    assert next_offset == index - 1
    for offset in range(next_offset):
        (record,) = node.stream_files.read(1, offset, 1)[0].records()
        assert record.value == _value(offset + 2)
    node.close()


class _Lane:
    """`Jobs` that run, and are reported, when it is told to."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], Any], Callable[[Future[Any]], None]]] = deque()
        self.ended: deque[tuple[Future[Any], Callable[[Future[Any]], None]]] = deque()

    def run(
        self, lane: Lane, job: Callable[[], Any], done: Callable[[Future[Any]], None] = check
    ) -> None:
        self.waiting.append((job, done))

    def call_at(self, when: float, step: Callable[[], None]) -> None:
        self.ended.append((Future(), lambda _: step()))

    def run_next(self) -> None:
        job, done = self.waiting.popleft()
        future: Future[Any] = Future()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
        self.ended.append((future, done))

    def report_next(self) -> None:
        future, done = self.ended.popleft()
        done(future)


class _Fetch:
    """The leader's end, which now and then answers wrongly, and all that happens in between."""

    def __init__(self, disk: Disk, node: Recovered, choices: Choices) -> None:
        self.is_done = False
        self._there = _grown(_THERE)
        self._asked: list[SnapshotRead] = []
        self._folder = node.folder
        self._choices = choices
        self._lane = _Lane()
        self._sequence = 0
        self._catchup = Catchup(
            Staging(disk, node.folder),
            node.stream_files,
            cast("Jobs", self._lane),
            self._ask,
            self._done,
            bytes_per_s=1 << 40,
        )

    def _ask(self, peer: str, message: Message) -> None:
        assert isinstance(message, SnapshotRead)
        self._asked.append(message)

    def _done(self) -> None:
        self.is_done = True

    def offer(self) -> None:
        self._sequence += 1
        size = len(self._there[checkpoint.path_in(_DATA)])
        if self._choices.below(16) == 15:
            size = self._choices.below(2 * size)
        leader = self._choices.pick(("n2", "n3"))
        index = _THERE if self._choices.below(8) < 7 else _THERE + 1
        self._catchup.offered(leader, SnapshotOffer(1, self._sequence, index, 1, size))

    def run(self) -> None:
        """Until the fetch is done, or nothing is under way; then the lane's jobs end."""
        undisturbed = 0
        while not self.is_done and (self._lane.waiting or self._lane.ended or self._asked):
            undisturbed += not self._choices.left
            assert undisturbed < _STEPS_MAX, "the fetch does not end"
            self._step()
        while self._lane.waiting and self._choices.below(8) < 7:
            self._lane.run_next()

    def _step(self) -> None:
        match self._choices.below(16) if self._choices.left else 0:
            case 15:
                self.offer()
            case 14:
                self._catchup.cancel()
            case 13 if self._lane.waiting:
                self._lane.run_next()
            case 12 if self._asked:
                self._answer_next()
            case _:
                self._go_on()

    def _go_on(self) -> None:
        if self._lane.ended:
            self._lane.report_next()
        elif self._lane.waiting:
            self._lane.run_next()
        else:
            self._answer_next()

    def _answer_next(self) -> None:
        asked = self._asked.pop(self._choices.below(len(self._asked)))
        data = _changed(_answer(self._there, self._folder, asked), self._choices)
        leader = self._catchup._leader if self._choices.below(32) < 31 else "n4"
        self._catchup.arrived(leader, SnapshotData(asked.request, data))


def _answer(there: dict[str, bytes], folder: DataFolder, asked: SnapshotRead) -> bytes | None:
    path = checkpoint.path_in(_DATA)
    if asked.stream_id is not None:
        path = store_path(folder.stream_folder(asked.stream_id), asked.base_offset)
    content = there.get(path)
    return None if content is None else content[asked.position : asked.position + asked.length]


def _changed(data: bytes | None, choices: Choices) -> bytes | None:
    if data is None or not choices.left:
        return data
    match choices.below(64):
        case 0:
            return None
        case 1:
            return b""
        case 2:
            return data[: choices.below(len(data) + 1)]
        case 3:
            return data + choices.binary()
        case 4:
            return edited(data, choices)
        case 5 if data:
            return flipped(data, choices.below(8 * len(data)))
    return data


@cache
def _grown(last: int) -> dict[str, bytes]:
    """The files of a node that has applied, written and kept entries 1 … last."""
    disk = Disk()
    node = recover(_CONFIG, disk)
    machine, files = node.machine, node.stream_files
    created = encode_commands([CreateStream("s", {"segment.bytes": 1_000}, 1)])
    machine.apply(1, 1, memoryview(created))
    for index in range(2, last + 1):
        entry = encode_commands([Applied().batch(_value(index))])
        machine.apply(index, 1, memoryview(entry))
    for stream in machine.created:
        files.create(stream.id)
    taken = machine.take_unwritten()
    files.write(taken)
    machine.written(taken)
    checkpoint.save(disk, node.folder.path, Snapshot(machine).sections(files.sync()))
    node.close()
    paths = [
        checkpoint.path_in(_DATA),
        f"{_DATA}/format",
        f"{_DATA}/node",
        *disk.files_in(f"{_DATA}/wal"),
    ]
    paths += disk.files_in(node.folder.stream_folder(1))
    return {path: disk.get(path) for path in paths}


def _value(index: int) -> bytes:
    return b"%06d" % index * 30
