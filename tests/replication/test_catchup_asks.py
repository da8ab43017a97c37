"""What a node that fetches a snapshot asks for, and when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cute_logger.replication import catchup, upstream
from cute_logger.replication.catchup import PIECE_BYTES, PIECES_UNDER_WAY, Catchup
from cute_logger.replication.install import Staging
from cute_logger.replication.jobs import Jobs
from cute_logger.replication.messages import Message, SnapshotData, SnapshotOffer, SnapshotRead
from cute_logger.replication.runtime import Lane
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.storage.errors import StorageError
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.folder import DataFolder

SIZE = 10 * PIECE_BYTES + 5
TICK_S = 1e-3
OFFER = SnapshotOffer(1, 1, 100, 1, SIZE)


class Inline:
    """A runtime whose jobs are done at once, and whose timers ring when told."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def run(self, lane: Lane, job: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
        future: Future[Any] = Future()
        try:
            future.set_result(job())
        except StorageError as error:
            future.set_exception(error)
        done(future)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        if when <= upstream.now() + TICK_S:
            callback()
        else:
            self.timers.append((when, callback))

    def wall_ms(self) -> int:
        raise NotImplementedError

    def call_soon(self, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def token(self) -> str:
        raise NotImplementedError


class Fetch:
    def __init__(self, folder: DataFolder, bytes_per_s: int) -> None:
        self.asked: list[SnapshotRead] = []
        self.runtime = Inline()
        self.staging = Staging(OS_FILES, folder)
        self.catchup = Catchup(
            self.staging,
            StreamFiles(folder, OS_FILES),
            Jobs(self.runtime, lambda step, *args: step(*args)),
            self._send,
            lambda: None,
            bytes_per_s,
        )
        self.catchup.offered("n1", OFFER)

    def _send(self, peer: str, message: Message) -> None:
        assert isinstance(message, SnapshotRead)
        self.asked.append(message)

    def answer(self, asked: SnapshotRead) -> None:
        data = bytes([asked.position // PIECE_BYTES]) * asked.length
        self.catchup.arrived("n1", SnapshotData(asked.request, data))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; the last item counts."""
    times = [1000.0]
    monkeypatch.setattr(upstream, "now", lambda: times[-1])
    return times


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with DataFolder.open(str(tmp_path), "n2") as folder:
        yield folder


def test_few_are_under_way_and_late_ones_are_waited_for(
    folder: DataFolder, clock: list[float]
) -> None:
    fetch = Fetch(folder, 1 << 40)
    first = list(fetch.asked)
    assert [each.position for each in first] == [n * PIECE_BYTES for n in range(PIECES_UNDER_WAY)]
    for asked in first[:0:-1]:
        fetch.answer(asked)
    assert fetch.asked == first
    clock.append(clock[-1] + 0.01)
    fetch.answer(first[0])
    assert len(fetch.asked) == 2 * PIECES_UNDER_WAY


def test_what_got_lost_is_asked_for_again(folder: DataFolder, clock: list[float]) -> None:
    fetch = Fetch(folder, 1 << 40)
    first = list(fetch.asked)
    fetch.answer(first[1])
    clock.append(clock[-1] + catchup.ASK_AGAIN_S + 0.1)
    fetch.catchup.offered("n1", OFFER)
    assert fetch.asked[PIECES_UNDER_WAY:] == [first[0], *first[2:]]


def test_an_answer_that_is_too_short_ends_the_fetch(folder: DataFolder, clock: list[float]) -> None:
    fetch = Fetch(folder, 1 << 40)
    fetch.catchup.arrived("n1", SnapshotData(fetch.asked[0].request, b"short"))
    assert fetch.catchup.index is None


def test_it_asks_no_faster_than_it_may(folder: DataFolder, clock: list[float]) -> None:
    fetch = Fetch(folder, PIECE_BYTES)
    started = clock[-1]
    while sum(each.length for each in fetch.asked) < SIZE:
        before = len(fetch.asked)
        if fetch.runtime.timers:
            when, ring = fetch.runtime.timers.pop(0)
            clock.append(max(clock[-1], when))
            ring()
        for asked in fetch.asked[before - 1 :]:
            fetch.answer(asked)
        allowed = PIECE_BYTES * (1 + clock[-1] - started)
        assert sum(each.length for each in fetch.asked) <= allowed + 1
    assert clock[-1] - started >= 9.9
