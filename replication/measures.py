"""What a node counts about itself: a few numbers, cheap enough to be counted always.

They decide nothing. Whoever wants them reads them when asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

FLUSH_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Durations:
    """How many durations were at most so long, for a few bounds."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = bounds_s
        """Upper bounds, inclusive, ascending, in seconds; a last one without end is implied."""
        self.sum_s = 0.0
        self._counts = [0] * (len(bounds_s) + 1)

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, the endless one last, with the number of durations up to it."""
        count = 0
        for bound_s, inside in zip((*self.bounds_s, float("inf")), self._counts, strict=True):
            count += inside
            yield bound_s, count


@dataclass(slots=True)
class Measures:
    """Counted since the process started. Changed on the event loop only."""

    flushes: Durations = field(default_factory=lambda: Durations(FLUSH_BOUNDS_S))
    """Writes of the write-ahead log with their fdatasync."""
    flushed_bytes: int = 0
    checkpoints: int = 0
    checkpoint_s: float | None = None
    """How long the last checkpoint took."""
    mended_bytes: int = 0
    """Written in the place of damaged bytes."""
    scrubbed_bytes: int = 0
    """Read in the background to look for damage."""
    compacted_bytes: int = 0
    """Read to compact streams: to find out what may go, and to do it."""
    compaction_written_bytes: int = 0
    """Of the segments that compaction made here."""
    compactions: int = 0
    """Runs of segments that compaction made one of here."""
    compaction_removed_records: int = 0
    compaction_s: float = 0.0
    """Its steps took so long, with their time in the queue for the streams' thread."""
    damaged_checkpoints: int = 0
    """Found so and written anew."""


@dataclass(frozen=True, slots=True)
class DamagedPlace:
    """Bytes of a stream that cannot be read here, and are fetched from another node."""

    stream: str | None
    """None if the stream was deleted meanwhile."""
    segment: int
    """Base offset."""
    position: int
    """Byte of the segment's file where the first bad batch begins."""
    offset: int
    """Of that batch."""
    reason: str
    copies: dict[str, str]
    """What was found of the other nodes' copies when they were last asked, by node."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What an operator watches of a replica, besides its `ClusterStatus`, as of now."""

    measures: Measures
    wal_pending_bytes: int
    """Written to the write-ahead log's buffer and not durable yet."""
    waiting_bytes: int
    """Appends that are queued or uncommitted, on the leader."""
    disk_free_bytes: int | None
    """None before the first look at the disk."""
    disk_is_short: bool
    disk_is_full: bool
    stream_count: int
    stream_bytes: int
    damaged_places: int
    unmended_places: int
    """Of these, the ones that no other node could help with so far."""
    cached_bytes: int
    """Batches kept in memory for readers."""
    cache_hits: int
    """Reads of batches that were answered from memory …"""
    cache_misses: int
    """… and those that went to a file."""
    is_compacting: bool
    """A pass is under way, which this node leads."""
    compactions_waiting: int
    """Runs agreed upon, that are still to be done to this node's files."""
    group_count: int
    group_lag_max: int
    """Records that the group furthest behind has before it in one stream."""
