"""One stream's part of the replicated state. Changed in apply only."""

from __future__ import annotations

from collections.abc import Mapping

from ..storage.batch import CHAIN_START, Batch
from ..storage.log import LogConfig
from .commands import AppendBatch
from .dedupe import KeyTable
from .errors import ConditionFailed, RecordTooLarge, Refused
from .indexes import IndexDefinition
from .segments import Segments
from .types import StreamConfig, StreamInfo

DEDUPE_WINDOW_MS = 24 * 3600 * 1000
DEDUPE_ENTRIES = 100_000
RECORD_BYTES_MAX = 1 << 20
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
        segment_ms = self.number("segment.ms")
        return segment_ms if segment_ms >= 0 else self.number("retention.ms")

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
