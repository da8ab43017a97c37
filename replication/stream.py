"""One stream's part of the replicated state. Changed in apply only."""

from __future__ import annotations

from collections.abc import Mapping

from ..storage.batch import CHAIN_START, Batch
from ..storage.log import LogConfig
from . import policy
from .commands import AppendBatch
from .dedupe import KeyTable
from .errors import ConditionFailed, InvalidRequest, RecordTooLarge, Refused
from .indexes import IndexDefinition
from .segments import Segments
from .types import StreamConfig, StreamInfo

DEDUPE_WINDOW_MS = 24 * 3600 * 1000
DEDUPE_ENTRIES = 100_000
RECORD_BYTES_MAX = 1 << 20
DELETE_RETENTION_MS = 24 * 3600 * 1000
CLEANINGS_PER_RETENTION = 16
CLEANINGS_MAX = 64
SEGMENT_BYTES_MAX = LogConfig().segment_bytes_max


class Stream:
    def __init__(self, stream_id: int, name: str, config: StreamConfig) -> None:
        self.id = stream_id
        self.name = name
        self.config = dict(config)
        self.log_start_offset = 0
        self.next_offset = 0
        """The high watermark: everything applied is committed."""
        self.last_timestamp: int | None = None
        self.chain = CHAIN_START
        self.segments = Segments()
        self.cleaned_until = 0
        """Every key is there once below this offset, as far as compaction is agreed upon."""
        self.cleanings: list[tuple[int, int]] = []
        """Up to which offset had a pass ended by which log time; some of them, ascending."""
        self.keys = KeyTable(*self._dedupe_bounds())
        self.indexes: dict[str, IndexDefinition] = {}

    def number(self, setting: str, default: int = -1) -> int:
        """The value of a setting that is a number; `default` if this stream was made without it,
        or with something else, which only a front end of another version could let pass.
        """
        value = self.config.get(setting, default)
        return value if isinstance(value, int) else default

    @property
    def record_bytes_max(self) -> int:
        return self.number("max.message.bytes", RECORD_BYTES_MAX)

    def refusal_of(self, append: AppendBatch, next_offset: int) -> Refused | None:
        """Why the batch may not be appended at `next_offset`: limits first, then conditions."""
        if append.record_bytes_max > self.record_bytes_max:
            return RecordTooLarge(
                f"a record of {append.record_bytes_max} bytes is above max.message.bytes",
                limit_bytes=self.record_bytes_max,
            )
        if append.keyless and policy.compacts(self.config):
            return InvalidRequest(
                f"{append.keyless} of {append.count} records have no key, which a compacted stream"
                " needs",
                field="records",
            )
        if append.if_offset is not None and append.if_offset != next_offset:
            return ConditionFailed(
                f"the stream's next offset is {next_offset}, not {append.if_offset}",
                actual=next_offset,
            )
        return None

    def _dedupe_bounds(self) -> tuple[int, int]:
        return (
            self.number("dedupe.window.ms", DEDUPE_WINDOW_MS),
            self.number("dedupe.max.entries", DEDUPE_ENTRIES),
        )

    def add(self, batch: Batch) -> bool:
        """Count in the batch at the end of the stream; True if it begins a segment."""
        begins_segment = not self.segments.takes(
            batch,
            bytes_max=self.number("segment.bytes", SEGMENT_BYTES_MAX),
            age_ms_max=self._segment_ms_max(),
            log_start_offset=self.log_start_offset,
        )
        self.segments.add(batch, begins_segment=begins_segment)
        self.next_offset = batch.next_offset
        self.last_timestamp = batch.timestamp
        self.chain = batch.digest()
        return begins_segment

    def _segment_ms_max(self) -> int:
        """Only whole segments expire: one that goes on for longer than a record is to be kept would
        keep its first one far too long.
        """
        limits = [self.number("segment.ms")]
        if limits[0] < 0 and policy.deletes(self.config):
            limits = [self.number("retention.ms")]
        if policy.compacts(self.config):
            # Only sealed segments are compacted.
            limits.append(self.number("max.compaction.lag.ms"))
        return min((limit for limit in limits if limit >= 0), default=-1)

    def cleaned(self, until: int, log_time: int) -> None:
        """A pass of compaction has ended. Notes some of the times, for `tombstones_below`."""
        if until <= self.cleaned_until or until > self.next_offset:
            return
        self.cleaned_until = until
        retention_ms = self.number("delete.retention.ms", DELETE_RETENTION_MS)
        known = self.cleanings
        if not known or log_time - known[-1][1] >= retention_ms // CLEANINGS_PER_RETENTION:
            known.append((until, log_time))
        while len(known) > 1 and (
            known[1][1] <= log_time - retention_ms or len(known) > CLEANINGS_MAX
        ):
            del known[0]

    def tombstones_below(self, now_ms: int) -> int:
        """The offset below which whoever reads on has had `delete.retention.ms` to see tombstones,
        since what they delete was removed.
        """
        retention_ms = self.number("delete.retention.ms", DELETE_RETENTION_MS)
        old = [until for until, at in self.cleanings if at <= now_ms - retention_ms]
        return max(old, default=0)

    def alter(self, changes: Mapping[str, int | str | bool], log_time: int) -> None:
        self.config |= changes
        self.keys.resize(*self._dedupe_bounds(), log_time)


def describe(stream: Stream) -> StreamInfo:
    return StreamInfo(
        stream.name,
        dict(stream.config),
        stream.log_start_offset,
        stream.next_offset,
        stream.segments.size_bytes,
        len(stream.segments),
        stream.last_timestamp,
    )
