"""Which records a stream need not keep any longer.

Only the leader asks, now and then, and proposes the answer as a `TrimStream`; replicas trim by
that entry alone, so this may change between versions. Segments go as a whole, oldest first, the
newest never: a stream keeps up to a segment more than its settings say.

Age is judged by the leader's wall clock against the timestamps of the appends. A clock that is
behind keeps records longer; log time would not do, since it stands still while nobody appends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import policy
from .commands import TrimStream
from .stream import Stream


def due_trims(streams: Iterable[Stream], now_ms: int) -> Iterator[TrimStream]:
    """Yield a trim for each stream that holds more than its settings ask for."""
    for stream in streams:
        before = kept_from(stream, now_ms)
        if before > stream.log_start_offset:
            yield TrimStream(stream.name, before, now_ms, stream.id)


def kept_from(stream: Stream, now_ms: int) -> int:
    """Return the offset below which nothing has to be kept at `now_ms` (ms since the epoch)."""
    age_ms_max = stream.number("retention.ms")
    bytes_min = stream.number("retention.bytes")
    records_min = stream.number("retention.records")
    before = stream.log_start_offset
    if not policy.deletes(stream.config) or policy.is_immutable(stream.config):
        return before
    if max(age_ms_max, bytes_min, records_min) < 0:
        return before
    left_bytes = stream.segments.size_bytes
    left_records = stream.segments.count
    for segment in stream.segments.sealed():
        left_bytes -= segment.size_bytes
        left_records -= segment.count
        is_old = 0 <= age_ms_max < now_ms - segment.last_timestamp
        if not (is_old or 0 <= bytes_min <= left_bytes or 0 <= records_min <= left_records):
            break
        before = max(before, segment.end_offset)
    return before
