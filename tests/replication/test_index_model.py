"""Whatever happens to a stream and its indexes, a search finds what a look at all records finds."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cute_logger.replication.errors import UnknownKey
from cute_logger.replication.search_terms import Asked, Terms
from cute_logger.storage.index_values import encode, source_of
from cute_logger.storage.record import Record, StoredRecord
from support.indexed import Indexed

KEYS = [None, b"", b"a", b"b", b"\0", b"\0\xff", b"long" * 200, b"long" * 200 + b"er"]
SCALARS = [None, True, False, 0, 1, 1.5, -3, 2**63, 2**63 + 1, "a", "b", "", "long" * 200]
ONS = ["key", "header:h", "value:/v", "value:/v/0"]
TERMS = [b"", b"a", b"b", b"1", b"1.5", b"null", b"true", b'"1"', b"\0", b"long" * 200]

keys = st.sampled_from(KEYS)
values = st.one_of(
    st.none(),
    st.sampled_from([b"plain", b"[", b"\x81\xa1v\x01"]),
    st.sampled_from(SCALARS).map(lambda scalar: json.dumps({"v": scalar}).encode()),
    st.sampled_from(SCALARS).map(lambda scalar: json.dumps({"v": [scalar]}).encode()),
)
records = st.builds(
    Record, value=values, key=keys, headers=st.sampled_from([{}, {"h": "a"}, {"h": "b"}])
)
terms = st.sampled_from(TERMS)
asked = st.one_of(
    st.builds(Asked, eq=terms, is_descending=st.booleans()),
    st.builds(Asked, prefix=terms, is_descending=st.booleans()),
    st.builds(Asked, ge=terms, lt=terms, is_descending=st.booleans()),
    st.builds(Asked, ge=terms, is_descending=st.booleans()),
    st.builds(Asked, lt=terms, is_descending=st.booleans()),
)


def expected(records: list[StoredRecord], on: str, asked: Asked) -> list[int]:
    source = source_of(on)
    wanted = Terms(asked, source)
    found: list[Any] = []
    for record in records:
        value = source.find(record)
        if value is not None and wanted.accept(value):
            place = b"" if asked.eq is not None else encode(value)
            found.append((place, record.offset))
    return [offset for _, offset in sorted(found, reverse=asked.is_descending)]


class IndexMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.node = Indexed(self.folder)
        self.node.create()
        self.records: list[StoredRecord] = []
        self.indexes: dict[str, tuple[str, str]] = {}

    @rule(batch=st.lists(records, min_size=1, max_size=8))
    def append(self, batch: list[Record]) -> None:
        first = self.node.stream.next_offset
        self.node.append(*batch)
        self.records += [
            StoredRecord(first + number, 0, each.key, each.value, each.headers)
            for number, each in enumerate(batch)
        ]

    @rule(share=st.floats(0, 1))
    def trim(self, share: float) -> None:
        stream = self.node.stream
        before = stream.log_start_offset + int(
            share * (stream.next_offset - stream.log_start_offset)
        )
        self.node.trim(before)
        self.records = [record for record in self.records if record.offset >= before]

    @rule(
        name=st.sampled_from(["x", "y"]),
        kind=st.sampled_from(["btree", "btree", "bloom"]),
        on=st.sampled_from(ONS),
    )
    def define(self, name: str, kind: str, on: str) -> None:
        definition, created = self.node.define(name, kind, on)
        assert created is (name not in self.indexes)
        assert (definition.kind, definition.on) == (kind, on)
        self.indexes[name] = (kind, on)

    @precondition(lambda self: self.indexes)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.indexes)))
        assert self.node.drop(name) is None
        del self.indexes[name]

    @rule(count=st.sampled_from([1, 3, 50]))
    def build(self, count: int) -> None:
        self.node.turn(count)

    @rule()
    def crash(self) -> None:
        self.node.crash()
        self.node.open()

    @precondition(lambda self: self.indexes)
    @rule(data=st.data(), asked=asked, limit=st.integers(1, 9))
    def search(self, data: st.DataObject, asked: Asked, limit: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.indexes)))
        kind, on = self.indexes[name]
        if kind == "btree" or asked.eq is not None:
            assert self.node.find(name, asked, limit) == expected(self.records, on, asked)

    @rule(key=keys.filter(lambda key: key is not None), share=st.none() | st.floats(0, 1))
    def look_up(self, key: bytes, share: float | None) -> None:
        stream = self.node.stream
        as_of = None
        if share is not None:
            as_of = stream.log_start_offset + int(
                share * (stream.next_offset - stream.log_start_offset)
            )
        found = [
            record
            for record in self.records
            if record.key == key and (as_of is None or record.offset <= as_of)
        ]
        if found and found[-1].value is not None:
            assert self.node.newest(key, as_of).offset == found[-1].offset
        else:
            with pytest.raises(UnknownKey):
                self.node.newest(key, as_of)

    @invariant()
    def files_are_those_of_indexes(self) -> None:
        if hasattr(self, "node"):
            assert set(self.node.stream.indexes) == set(self.indexes)

    def teardown(self) -> None:
        if hasattr(self, "node"):
            self.node.crash()
            shutil.rmtree(self.folder)


IndexMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True
)
TestIndexModel = IndexMachine.TestCase
