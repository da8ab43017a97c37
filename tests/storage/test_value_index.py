"""The tree on disk: what is in it, what it outlives, and what is begun anew."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cute_logger.storage.tree_check import TreeSum
from cute_logger.storage.value_index import BadIndex, Found, ValueIndex, entry

ALL = range(10**9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "indexes" / "1"


@pytest.fixture
def open_index(path: Path) -> Iterator[type[ValueIndex]]:
    """Open the index of `path`; all are closed in the end."""
    opened: list[ValueIndex] = []

    def open_it(identity: bytes = b"me", *, backfill: bool = False) -> ValueIndex:
        if opened:
            opened[-1].close()
        opened.append(ValueIndex.open(str(path), identity, backfill=backfill))
        return opened[-1]

    yield open_it  # type: ignore[misc]
    for each in opened:
        each.close()


def value_of(number: int) -> bytes:
    return b"\5%03d\0\0" % (number % 10)


def fill(index: ValueIndex, count: int, start: int = 0) -> None:
    entries = sorted(entry(value_of(number), number) for number in range(start, start + count))
    index.add(entries, start + count, (1, start + count))


def offsets(found: Found) -> list[int]:
    return [hit.offset for hit in found.hits]


def look(index: ValueIndex, low: bytes, high: bytes, **options: object) -> Found:
    settings = {"offsets": ALL, "count_max": 10**6, "visits_max": 10**6} | options
    return index.find(low, high, **settings)  # type: ignore[arg-type]


def test_entries_are_found_in_both_directions(open_index) -> None:
    index = open_index()
    fill(index, 50)
    low, high = value_of(3), value_of(3) + b"\xff" * 9
    assert offsets(look(index, low, high)) == [3, 13, 23, 33, 43]
    assert offsets(look(index, low, high, is_reverse=True)) == [43, 33, 23, 13, 3]
    found = look(index, low, high, count_max=2)
    assert offsets(found) == [3, 13]
    assert found.stopped_at == found.hits[-1]
    found = look(index, low, high, visits_max=3, offsets=range(20, 40))
    assert (offsets(found), found.stopped_at.offset) == ([23], 23)
    everything = look(index, b"\1", b"\xff")
    assert len(everything.hits) == 50
    assert look(index, b"\1", b"\xff", is_reverse=True).hits == everything.hits[::-1]
    assert look(index, b"\6", b"\7", is_reverse=True).hits == []


def test_it_outlives_its_process(open_index, path: Path) -> None:
    index = open_index(backfill=True)
    fill(index, 50)
    assert (path / "backfilling").exists()
    assert open_index().is_backfilling
    index = open_index()
    index.end_backfill()
    assert not (path / "backfilling").exists()
    fill(index, 10, 50)
    index = open_index()
    assert (index.through, index.witness, index.is_backfilling) == (60, (1, 60), False)
    assert len(look(index, b"\1", b"\xff").hits) == 60


def test_the_map_grows(open_index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cute_logger.storage.value_index._MAP_BYTES_MIN", 1 << 15)
    index = open_index()
    for start in range(0, 6000, 2000):
        fill(index, 2000, start)
    assert len(look(index, b"\1", b"\xff").hits) == 6000


def test_entries_of_trimmed_records_go_a_few_at_a_time(open_index) -> None:
    index = open_index()
    fill(index, 100)
    at: bytes | None = b""
    steps = 0
    while at is not None:
        at = index.prune(at, 90, 30)
        steps += 1
    assert steps == 4
    assert sorted(offsets(look(index, b"\1", b"\xff"))) == list(range(90, 100))
    assert open_index().through == 100


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "short", "garbage", "zeros", "pages", "identity", "boot"]
)
def test_what_is_not_as_written_is_begun_anew(
    open_index, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(backfill=damage == "boot")
    fill(index, 2000)
    index.close()
    data = path / "data.mdb"
    size = data.stat().st_size
    if damage == "cut":
        os.truncate(data, size // 2)
    elif damage in ("empty", "short", "garbage", "zeros"):
        contents = {"empty": b"", "short": b"x", "garbage": os.urandom(size), "zeros": bytes(size)}
        data.write_bytes(contents[damage])
    elif damage == "pages":
        data.write_bytes(data.read_bytes()[:8192] + os.urandom(size - 8192))
    elif damage == "boot":
        (path / "backfilling").write_text("an earlier one\n")
    with caplog.at_level(logging.WARNING):
        index = open_index(b"another" if damage == "identity" else b"me")
    assert index.through == 0
    assert look(index, b"\1", b"\xff").hits == []
    assert len(caplog.records) == (damage != "empty")
    fill(index, 10)
    assert len(look(index, b"\1", b"\xff").hits) == 10


def check(index: ValueIndex, step: int = 100) -> None:
    walk = index.begin_check()
    while not index.check(walk, step):
        pass


def test_a_sound_tree_passes_the_check_whatever_is_done_to_it(open_index) -> None:
    index = open_index()
    check(index)
    fill(index, 500)
    check(index)
    walk = index.begin_check()
    index.check(walk, 100)
    fill(index, 500, start=500)
    while not index.check(walk, 100):
        pass
    assert index.prune(b"", 200, 10_000) is None
    check(index)
    index = open_index()
    check(index)
    assert len(look(index, b"\1", b"\xff").hits) == 800


def test_parts_that_a_crash_left_are_counted_once(open_index) -> None:
    index = open_index()
    entries = sorted(entry(value_of(number), number) for number in range(100))
    index.add(entries[:60], 0, None, TreeSum())
    check(index)
    index = open_index()
    index.add(entries[:50], 0, None, TreeSum())
    index.add(entries[50:], 100, (1, 1), TreeSum.of(entries))
    check(index)


def pages(data: bytes, flag: int) -> Iterator[int]:
    """Positions of the pages of a kind: 1 branch, 2 leaf."""
    for position in range(8192, len(data), 4096):
        if int.from_bytes(data[position + 10 : position + 12], "little") == flag:
            yield position


@pytest.mark.parametrize("kind", ["leaf", "branch"])
def test_rot_in_a_page_is_found_by_the_check(open_index, path: Path, kind: str) -> None:
    index = open_index()
    fill(index, 5000)
    index.close()
    rotten = bytearray((path / "data.mdb").read_bytes())
    wanted = entry(value_of(3), 4993) if kind == "leaf" else value_of(5)
    for position in pages(bytes(rotten), 2 if kind == "leaf" else 1):
        at = rotten.find(wanted, position, position + 4096)
        if at >= 0:
            rotten[at + 3] ^= 0x08
    assert rotten != (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(rotten)
    index = open_index()
    hits = [offsets(look(index, value_of(n), value_of(n) + b"\xff" * 9)) for n in range(10)]
    assert hits != [list(range(n, 5000, 10)) for n in range(10)], "a look does not notice"
    with pytest.raises(BadIndex):
        check(index)


def test_a_look_waits_for_no_writer_and_sees_whole_transactions(open_index) -> None:
    index = open_index(backfill=True)
    seen: list[tuple[int, int]] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            found = look(index, b"\1", b"\xff")
            seen.append((found.through, len(found.hits)))

    reader = threading.Thread(target=read)
    reader.start()
    for start in range(0, 2000, 100):
        fill(index, 100, start)
    index.end_backfill()
    fill(index, 100, 2000)
    is_over.set()
    reader.join()
    assert seen
    assert all(through == count for through, count in seen)
    index.close()
    assert look(index, b"\1", b"\xff").through == 0
