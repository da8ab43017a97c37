"""What the cluster answers about secondary indexes and searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .answers import members_of
from .record import Record
from .wire import record_from


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index as the node that answered has it."""

    name: str
    kind: str
    """`btree` or `bloom`."""
    on: str
    """`key`, `header:NAME` or `value:/json/pointer`."""
    state: str
    """`building`, `ready`."""
    coverage: float
    """Share of the stream that it covers, 0 to 1; searches are right whatever it is."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some of what a search finds."""

    records: list[Record]
    cursor: str | None
    """Where to go on, at any node; None: there is nothing more."""
    coverage: float
    high_watermark: int
    """Records from here on were not looked at."""
    index: int


def index_from(shape: Any) -> IndexInfo:
    """Raises MalformedAnswer, as all functions here do."""
    members = members_of(shape)
    return IndexInfo(
        name=members["name"],
        kind=members["kind"],
        on=members["on"],
        state=members["state"],
        coverage=members["coverage"],
    )


def indexes_from(shape: Any) -> list[IndexInfo]:
    return [index_from(index) for index in members_of(shape)["indexes"]]


def search_page_from(shape: Any) -> SearchPage:
    members = members_of(shape)
    return SearchPage(
        records=[record_from(record) for record in members["records"]],
        cursor=members["cursor"],
        coverage=members["coverage"],
        high_watermark=members["high_watermark"],
        index=members["index"],
    )
