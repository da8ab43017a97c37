"""When the leader has a stream compacted, and how far.

Only the leader asks, now and then. What it proposes says which records stay, so replicas compact by
that entry alone, and all of this may change between versions. Age is judged by the leader's wall
clock against the timestamps of the appends, as for retention.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from . import policy
from .stream import SEGMENT_BYTES_MAX, Stream


class Pass(NamedTuple):
    """One pass of compaction over a stream."""

    name: str
    stream_id: int
    cleaned_until: int
    end_offset: int
    """Where the last segment that takes part ends."""
    tombstones_below: int
    segment_bytes_max: int
    urgency: float
    """Share of what is new; above 1 if the oldest of it waits for too long."""


def due_pass(streams: Iterable[Stream], now_ms: int) -> Pass | None:
    """Return what is to be done first at `now_ms` (ms since the epoch), if anything is."""
    due = (found for stream in streams if (found := pass_over(stream, now_ms)) is not None)
    return max(due, key=lambda each: each.urgency, default=None)


def pass_over(stream: Stream, now_ms: int) -> Pass | None:
    """Return the pass that is due over one stream.

    Segments whose newest record is younger than `min.compaction.lag.ms` take no part. What is new
    has to be `min.cleanable.dirty.ratio` of the rest, or older than `max.compaction.lag.ms`.
    """
    if not policy.compacts(stream.config) or policy.is_immutable(stream.config):
        return None
    lag_ms_min = stream.number("min.compaction.lag.ms", 0)
    lag_ms_max = stream.number("max.compaction.lag.ms")
    clean_bytes = dirty_bytes = end_offset = 0
    oldest: int | None = None
    for row in stream.segments.sealed():
        if row.end_offset <= stream.cleaned_until:
            clean_bytes += row.size_bytes
            continue
        if lag_ms_min and now_ms - row.last_timestamp < lag_ms_min:
            break
        dirty_bytes += row.size_bytes
        end_offset = row.end_offset
        oldest = row.first_timestamp if oldest is None else oldest
    if oldest is None:
        return None
    ratio = dirty_bytes / (clean_bytes + dirty_bytes)
    is_overdue = 0 <= lag_ms_max < now_ms - oldest
    if ratio < policy.ratio(stream.config) and not is_overdue:
        return None
    return Pass(
        stream.name,
        stream.id,
        stream.cleaned_until,
        end_offset,
        stream.tombstones_below(now_ms),
        stream.number("segment.bytes", SEGMENT_BYTES_MAX),
        ratio + is_overdue,
    )
