"""The indexer's work: what it builds, when it rests, what it gives up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cute_logger.replication.commands import CreateStream, DeleteStream
from cute_logger.replication.index_contents import CHECK_PAUSE_S, TreeContent, in_parts
from cute_logger.replication.index_files import KEY
from cute_logger.replication.search_terms import Asked
from cute_logger.storage.index_values import encode, text
from cute_logger.storage.record import Record
from cute_logger.storage.value_index import NoRoom, ValueIndex, entry
from support.indexed import Indexed

ONE = Asked(eq=b"k1")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Indexed]:
    node = Indexed(str(tmp_path))
    node.create()
    yield node
    node.crash()


def fill(node: Indexed, count: int) -> None:
    for number in range(count):
        node.append(Record(b"v" * 50, b"k%d" % (number % 5)))


def tree(node: Indexed, name: str = "i") -> TreeContent:
    found = node.indexer.tree(node.stream, node.stream.indexes[name].id)
    assert found is not None
    return found


def entries(node: Indexed) -> int:
    opened = tree(node).tree
    assert opened is not None
    everything = opened.find(
        b"\1", b"\xff", offsets=range(10**9), count_max=10**6, visits_max=10**6
    )
    return len(everything.hits)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100, 1000])
def test_runs_are_merged_in_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cute_logger.replication.index_contents.PART_ENTRIES", 50)
    entries = [b"%04d" % (number * 7919 % 1009) for number in range(count)]
    runs = [sorted(entries[start : start + 30]) for start in range(0, count, 30)]
    parts = list(in_parts(runs))
    assert [is_last for _, is_last in parts] == [False] * (len(parts) - 1) + [True]
    assert [entry for part, _ in parts for entry in part] == sorted(entries)
    assert max(len(part) for part, _ in parts) <= 100


def test_it_follows_what_is_appended(node: Indexed) -> None:
    fill(node, 20)
    node.define("i", "btree", "key")
    node.settle()
    info = node.indexer.describe("s", "i", node.stream.indexes["i"])
    assert (info.state, info.coverage, info.lag, info.records) == ("ready", 1.0, 0, 20)
    fill(node, 5)
    info = node.indexer.describe("s", "i", node.stream.indexes["i"])
    assert (info.state, info.lag) == ("ready", 5)
    node.settle()
    assert entries(node) == 25


def test_what_was_built_is_not_built_again(node: Indexed) -> None:
    fill(node, 20)
    node.define("i", "btree", "key")
    node.settle()
    node.crash()
    node.open()
    fill(node, 3)
    node.settle()
    assert tree(node).records == 3
    assert entries(node) == 23


def test_a_tree_of_other_records_is_not_believed(
    node: Indexed, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster that lost what was committed has others at the same offsets."""
    fill(node, 20)
    node.define("i", "btree", "key")
    node.settle()
    opened = tree(node).tree
    assert opened is not None
    opened.add([], 20, (1, 999))
    node.crash()
    node.open()
    node.settle()
    assert tree(node).records == 20
    assert entries(node) == 20
    opened = tree(node).tree
    assert opened is not None
    opened.add([], 30, (1, 999))
    node.crash()
    node.open()
    node.settle()
    assert entries(node) == 20
    assert sum("builds it anew" in record.message for record in caplog.records) == 2


def test_a_short_disk_stops_it_until_there_is_room(node: Indexed) -> None:
    node.is_short = True
    fill(node, 20)
    node.define("i", "btree", "key")
    node.settle()
    assert node.indexer.tree(node.stream, 1).tree is None  # type: ignore[union-attr]
    assert node.find("i", ONE) == [1, 6, 11, 16]
    node.is_short = False
    node.settle()
    assert entries(node) == 20


def test_a_full_disk_is_waited_out(
    node: Indexed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(node, 20)
    node.define("i", "btree", "key")
    add = ValueIndex.add

    def full(*arguments: object) -> None:
        raise NoRoom("No space left on device")

    monkeypatch.setattr(ValueIndex, "add", full)
    node.settle()
    assert node.find("i", ONE) == [1, 6, 11, 16]
    assert sum("cannot be written" in record.message for record in caplog.records) == 1
    monkeypatch.setattr(ValueIndex, "add", add)
    node.settle()
    assert entries(node) == 20


def test_files_of_what_is_gone_are_removed(node: Indexed, tmp_path: Path) -> None:
    fill(node, 20)
    node.define("i", "btree", "key")
    node.define("j", "bloom", "header:h")
    node.settle()
    assert sorted(os.listdir(tmp_path / "0000000001")) == ["0000000001", "0000000002"]
    node.define("i", "btree", "header:h")
    node.drop("j")
    node.settle()
    assert os.listdir(tmp_path / "0000000001") == ["0000000003"]
    node.crash()
    (tmp_path / "0000000007" / "0000000001").mkdir(parents=True)
    (tmp_path / "0000000001" / "0000000009").mkdir()
    node.open()
    node.settle()
    assert os.listdir(tmp_path) == ["0000000001"]
    assert os.listdir(tmp_path / "0000000001") == ["0000000003"]
    node.applied(DeleteStream("s", 1))
    node.applied(CreateStream("s", {}, 1))
    node.settle()
    assert not any((tmp_path / "0000000001").glob("*/*"))


def test_entries_of_trimmed_records_are_pruned(
    node: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cute_logger.replication.index_contents.PRUNE_RECORDS_MIN", 10)
    fill(node, 60)
    node.define("i", "btree", "key")
    node.settle()
    node.trim(50)
    node.settle()
    assert entries(node) == 10
    assert node.find("i", ONE) == [51, 56]


def test_a_tree_that_lost_an_entry_is_built_again(
    node: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cute_logger.replication.index_contents.CHECK_VISITS", 10)
    fill(node, 60)
    node.define("i", "btree", "key")
    node.settle()
    whole = node.find("i", ONE)
    opened = tree(node).tree
    assert opened is not None
    with opened._env.begin(write=True) as transaction:
        assert transaction.delete(entry(encode(text(b"k1")), whole[-1]))
    fill(node, 5)
    node.settle()
    assert node.find("i", ONE) == [*whole[:-1], 61], "nobody has looked since"
    node.now += CHECK_PAUSE_S
    node.settle()
    assert node.find("i", ONE) == [*whole, 61]
    assert entries(node) == 65


def test_a_damaged_filter_is_built_again(node: Indexed, tmp_path: Path) -> None:
    fill(node, 60)
    node.define("j", "bloom", "key")
    node.settle()
    folder = tmp_path / "0000000001" / "0000000001"
    filters = sorted(folder.glob("*.bloom"))
    assert len(filters) == len(node.stream.segments) - 1
    filters[2].write_bytes(b"CUTEBLM1 and nothing else")
    node.crash()
    node.open()
    node.settle()
    nobody = Asked(eq=b"nobody")
    assert node.find("j", nobody, limit=50) == []
    node.settle()
    before = node.searches.counts.skipped
    assert node.find("j", nobody, limit=50) == []
    assert node.searches.counts.skipped - before == len(filters)


def test_absent_keys_skip_nearly_all_segments(node: Indexed) -> None:
    fill(node, 300)
    keys = [b"nobody%d" % number for number in range(50)]
    for key in keys:
        assert node.find_key(key) is None
    node.turn(1000)
    counts = node.searches.counts
    looked_at, skipped = counts.looked_at, counts.skipped
    for key in keys:
        assert node.find_key(key) is None
    share = (counts.skipped - skipped) / (counts.looked_at - looked_at)
    assert share >= 0.98
    assert counts.looked_at - looked_at >= 50 * (len(node.stream.segments) - 1) * 0.98
    node.crash()
    node.open()
    node.settle()
    content = node.indexer.filters(node.stream, KEY)
    assert content is not None
    assert content.is_ready
