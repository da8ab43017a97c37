"""The streams' logs on disk. Everything here blocks and runs on the streams lane, one job after the
other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..storage.batch import Batch
from ..storage.errors import DamagedBatch
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from ..storage.idle_segments import IdleSegments
from ..storage.index import POSITION_MAX
from ..storage.log import Log, LogConfig, LogState
from ..storage.names import SegmentName
from ..storage.verify import Cursor, verify
from .install import Held, kept_ends
from .unwritten import Unwritten

_CONFIG = LogConfig(segment_bytes_max=POSITION_MAX)
"""When a segment is sealed was decided in apply."""
OPEN_SEGMENTS_MAX = 128
"""Sealed ones, of all streams; four descriptors each. Who reads here and there in ten million
records, with segments of 16 MiB, opens none anew.
"""


class StreamFiles:
    def __init__(self, folder: DataFolder, files: FileSystem) -> None:
        self._folder = folder
        self._files = files
        self._logs: dict[int, Log] = {}
        self._idle = IdleSegments(OPEN_SEGMENTS_MAX)
        self.found_damaged: list[tuple[int, DamagedBatch]] = []
        """What was seen to be damaged when it was opened, by stream id."""

    def open(self, logs: Mapping[int, LogState], *, keeps_others: bool) -> None:
        """Open what the checkpoint vouches for; folders it does not know are leftovers and go,
        unless `keeps_others`: a snapshot is being fetched into them. A file that lacks what the
        checkpoint says is opened all the same, to be mended.
        """
        known = {self._folder.stream_folder(stream_id) for stream_id in logs}
        for name in self._files.listdir(self._folder.streams_folder):
            path = f"{self._folder.streams_folder}/{name}"
            if path not in known and not keeps_others:
                self._files.remove_folder(path)
        for stream_id, state in logs.items():
            self._open(stream_id, state)

    def create(self, stream_id: int) -> None:
        self._open(stream_id, LogState())

    def _open(self, stream_id: int, state: LogState) -> None:
        path = self._folder.stream_folder(stream_id)

        def on_damage(damage: DamagedBatch) -> None:
            self.found_damaged.append((stream_id, damage))

        self._logs[stream_id] = Log.open(
            path, _CONFIG, files=self._files, vouched=state, on_damage=on_damage, idle=self._idle
        )

    def log(self, stream_id: int) -> Log | None:
        """The stream's log, if it is there."""
        return self._logs.get(stream_id)

    def write(
        self, streams: Mapping[int, Unwritten], compacting: Collection[int] = frozenset()
    ) -> None:
        """Append to the streams' files, without fsync, and trim them. Those in `compacting` keep
        what is trimmed: a compaction that waits to be done needs it.
        """
        for stream_id, unwritten in streams.items():
            log = self._logs.get(stream_id)
            if log is None:
                continue
            log.keeps_trimmed = stream_id in compacting
            for number, batches in enumerate(unwritten.runs):
                if number:
                    log.roll()
                log.append(batches)
            log.trim(unwritten.log_start_offset)

    def read(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch]:
        """Whole batches from the one that holds `offset`; empty if the stream is gone or ends
        there. Raises OffsetOutOfRange, also if it was trimmed after the reader looked;
        DamagedBatch.
        """
        log = self._logs.get(stream_id)
        return log.read(offset, bytes_max) if log is not None else []

    def read_at_time(self, stream_id: int, timestamp: int, start: int) -> tuple[int, list[Batch]]:
        """An offset at or after `start` before which no record of the files is at or after
        `timestamp` (ms), and the batch that holds it, if a file does. Raises OffsetOutOfRange if
        `start` was trimmed meanwhile; DamagedBatch.
        """
        log = self._logs.get(stream_id)
        if log is None or start >= log.log_end_offset:
            return start, []
        offset = log.find_timestamp(timestamp, start)
        return offset, log.read(offset, 1)

    # ---- damage

    def holds(self, stream_id: int, offset: int) -> bool:
        """Is there a file for this offset, readable or not?"""
        log = self._logs.get(stream_id)
        return log is not None and log.first_offset <= offset < log.log_end_offset

    def copy(self, stream_id: int, offset: int, bytes_max: int, generation: int) -> bytes | None:
        """Whole batches from `offset` on, checked, for another node; None if they are not here, or
        in a segment of another generation. Raises DamagedBatch.
        """
        if self.generation_at(stream_id, offset) != generation:
            return None
        batches = self._logs[stream_id].read(offset, bytes_max, below_start=True)
        return b"".join(batch.data for batch in batches)

    def check(self, stream_id: int, name: SegmentName, position: int, length: int) -> None:
        """Check a range of a segment, if it was not trimmed away. Raises DamagedBatch.

        Of one that compaction replaced the file is there for a while: who gets bytes of it verifies
        them, as those of all others.
        """
        if self.generation_at(stream_id, name.base_offset) == name.generation:
            self._logs[stream_id].check(name.base_offset, position, length)

    def generation_at(self, stream_id: int, offset: int) -> int | None:
        """Of the segment that holds `offset`; None if none does."""
        if not self.holds(stream_id, offset):
            return None
        return self._logs[stream_id].generation_at(offset)

    def mend(self, stream_id: int, offset: int, data: bytes) -> tuple[Cursor, int]:
        """Put another node's copy in the place of damaged batches; where to verify on, and the
        bytes written. Raises as Log.mend does.
        """
        log = self._logs[stream_id]
        last, written = log.mend(offset, data)
        return Cursor(last.next_offset, None, log.link_behind(last), log.swaps), written

    def verify(self, stream_id: int, at: Cursor, bytes_max: int) -> tuple[Cursor, int] | None:
        """Check the next batches; where to go on and the bytes checked, None at the end. Raises
        DamagedBatch.
        """
        log = self._logs.get(stream_id)
        if log is None or at.offset >= log.log_end_offset:
            return None
        return verify(log, at, bytes_max)

    def skip_segment(self, stream_id: int, offset: int) -> Cursor:
        """Where to go on verifying behind the segment that holds `offset`."""
        if not self.holds(stream_id, offset):
            return Cursor(offset)
        return Cursor(self._logs[stream_id].segment_end(offset))

    def sync(self) -> dict[int, LogState]:
        """Make everything written durable and say how far each log reaches."""
        return {stream_id: log.sync() for stream_id, log in self._logs.items()}

    def remove(self, stream_ids: Sequence[int]) -> None:
        """Delete the files of dropped streams and of trimmed segments, once no checkpoint mentions
        them: when what the last `sync` returned has been saved.
        """
        for stream_id in stream_ids:
            log = self._logs.pop(stream_id, None)
            if log is not None:
                log.close()
                self._files.remove_folder(self._folder.stream_folder(stream_id))
        for log in self._logs.values():
            log.remove_trimmed()

    def held(self, wanted: Mapping[int, LogState]) -> dict[int, Held]:
        """What is here of each stream, durable from now on; `wanted` is what is to be here."""
        held = {}
        for stream_id, log in self._logs.items():
            state = log.sync()
            ends = kept_ends(wanted.get(stream_id, LogState()), state)
            links = {end: link for end in ends if (link := log.link_at(end)) is not None}
            held[stream_id] = Held(state, log.last_digest, links)
        return held

    def __enter__(self) -> StreamFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
