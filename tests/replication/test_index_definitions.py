"""Which indexes there are is replicated: made, altered, dropped, kept, and the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.replication import snapshot
from cute_logger.replication.commands import CreateIndex, CreateStream, DeleteStream, DropIndex
from cute_logger.replication.cursors import pack_cursor, unpack_cursor
from cute_logger.replication.errors import BadSearch, TooManyIndexes, UnknownIndex, UnknownStream
from cute_logger.replication.indexes import INDEXES_MAX, IndexDefinition
from cute_logger.storage.log import LogState
from cute_logger.storage.value_index import Hit
from support.applied import Applied


@pytest.fixture
def applied() -> Applied:
    applied = Applied()
    applied(CreateStream("s", {}, 1))
    return applied


def create(name: str, on: str = "key", kind: str = "btree", stream: str = "s") -> CreateIndex:
    return CreateIndex(stream, name, kind, on, 1)


def test_another_definition_is_another_index(applied: Applied) -> None:
    assert applied(create("i")) == (IndexDefinition(1, "btree", "key"), True)
    assert applied(create("i")) == (IndexDefinition(1, "btree", "key"), False)
    assert applied(create("i", "header:h")) == (IndexDefinition(2, "btree", "header:h"), False)
    assert applied(create("i", "header:h", "bloom"))[0].id == 3
    assert applied(DropIndex("s", "i", 1)) is None
    assert applied(create("i"))[0].id == 4


def test_what_cannot_be_is_refused(applied: Applied) -> None:
    assert isinstance(applied(create("i", stream="t")), UnknownStream)
    assert isinstance(applied(DropIndex("t", "i", 1)), UnknownStream)
    assert isinstance(applied(DropIndex("s", "i", 1)), UnknownIndex)
    for number in range(INDEXES_MAX):
        applied(create(f"i{number}"))
    assert isinstance(applied(create("one-more")), TooManyIndexes)
    assert applied(create("i0", "header:h"))[1] is False


def test_indexes_go_with_their_stream(applied: Applied) -> None:
    applied(create("i"))
    applied(DeleteStream("s", 1))
    applied(CreateStream("s", {}, 1))
    assert applied.machine.streams["s"].indexes == {}


def test_a_checkpoint_keeps_them(applied: Applied) -> None:
    applied(create("i"))
    applied(create("j", "value:/a", "bloom"))
    applied(DropIndex("s", "i", 1))
    sections = snapshot.Snapshot(applied.machine).sections({1: LogState()})
    restored = Applied()
    snapshot.restore(sections, restored.machine)
    assert restored.machine.streams["s"].indexes == {"j": IndexDefinition(2, "bloom", "value:/a")}
    assert restored(create("k"))[0].id == 3


def test_a_checkpoint_without_indexes_is_as_it_always_was(applied: Applied) -> None:
    sections = list(snapshot.Snapshot(applied.machine).sections({1: LogState()}))
    decoded = [snapshot.decode_section(section) for section in sections]
    assert not any(isinstance(section, snapshot.IndexRows) for section in decoded)


@pytest.mark.parametrize("position", [7, Hit(b"\5abc\0\0", 2**62)])
def test_a_cursor_comes_back_as_it_was(position: int | Hit) -> None:
    cursor = unpack_cursor(pack_cursor(1, 2, b"digest", 3, position))
    assert (cursor.stream_id, cursor.index_id, cursor.applied_index) == (1, 2, 3)
    assert (cursor.hit or cursor.offset) == position


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), st.text("lwEBAcQIAgMHwA", max_size=40)))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(BadSearch):
        unpack_cursor(text)
