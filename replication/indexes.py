"""Which secondary indexes a stream has: part of the replicated state. What is in them is not: every
node builds that for itself (`indexer.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..storage.wal_frame import Number

BTREE: Final = "btree"
BLOOM: Final = "bloom"
INDEXES_MAX: Final = 16
"""Of one stream."""


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    id: Number
    """Drawn anew whenever the definition changes; never used again."""
    kind: str
    on: str
    """As `storage.index_values.source_of` takes it; anything else has no records."""


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index as one node has it."""

    name: str
    kind: str
    on: str
    state: str
    """`building` until it has caught up once, then `ready`."""
    coverage: float
    """Share of the stream's records that a search finds through it, without a scan; 0 to 1."""
    records: int
    """Entries of a btree index, values in the filters of a bloom index, since the node started."""
    lag: int
    """Records that it does not cover yet."""
