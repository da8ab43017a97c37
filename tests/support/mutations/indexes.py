"""Bugs in secondary indexes and searches."""

from __future__ import annotations

from typing import Any

import pytest

from cute_logger.replication import snapshot
from cute_logger.replication.commands import CreateIndex
from cute_logger.replication.indexes import IndexDefinition
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.search import Search
from cute_logger.replication.search_parts import Part
from cute_logger.storage.segment_filter import SegmentFilter
from cute_logger.storage.value_index import ValueIndex

from .registry import mutation


@mutation("a search does not look at what the index lacks", "Search._read_matches", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    async def read_matches(self: Search, start: int, end: int) -> Part:
        return Part([], None)

    patch.setattr(Search, "_read_matches", read_matches)


@mutation("an index covers more than is in it", "ValueIndex.add", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = ValueIndex.add

    def add(self: ValueIndex, entries: list[bytes], through: int, witness: Any) -> None:
        original(self, entries[1:], through, witness)

    patch.setattr(ValueIndex, "add", add)


@mutation(
    "an index keeps its number under another definition", "StateMachine._create_index", "calm"
)
def _(patch: pytest.MonkeyPatch) -> None:
    original = StateMachine._create_index

    def create(self: StateMachine, command: CreateIndex, index: int, term: int) -> Any:
        stream = self.streams.get(command.stream)
        known = stream.indexes.get(command.name) if stream is not None else None
        made = original(self, command, index, term)
        if stream is not None and known is not None:
            kept = IndexDefinition(known.id, command.kind, command.on)
            stream.indexes[command.name] = kept
        return made

    patch.setitem(StateMachine._HANDLERS, CreateIndex, create)


@mutation("indexes are not in the checkpoint", "snapshot.IndexRows", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "_load_indexes", lambda machine, indexes: None)


@mutation("a filter denies what is there", "SegmentFilter.add", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SegmentFilter, "add", lambda self, values: None)
