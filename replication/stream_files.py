"""The streams' logs on disk. Everything here blocks and runs on the streams lane, one job after the
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..storage.batch import Batch
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from ..storage.log import Log, LogConfig, LogState


class StreamFiles:
    def __init__(self, folder: DataFolder, files: FileSystem) -> None:
        self._folder = folder
        self._files = files
        self._logs: dict[int, Log] = {}

    def open(self, logs: Mapping[int, tuple[LogConfig, LogState]]) -> None:
        """Open what the checkpoint vouches for; folders it does not know are leftovers and go.

        Raises Damaged if a file does not hold what the checkpoint says.
        """
        known = {self._folder.stream_folder(stream_id) for stream_id in logs}
        for name in self._files.listdir(self._folder.streams_folder):
            path = f"{self._folder.streams_folder}/{name}"
            if path not in known:
                self._files.remove_folder(path)
        for stream_id, (config, state) in logs.items():
            path = self._folder.stream_folder(stream_id)
            self._logs[stream_id] = Log.open(path, config, files=self._files, vouched=state)

    def create(self, stream_id: int, config: LogConfig) -> None:
        path = self._folder.stream_folder(stream_id)
        self._logs[stream_id] = Log.open(path, config, files=self._files, vouched=LogState())

    def write(self, batches: Mapping[int, Sequence[Batch]]) -> dict[int, int]:
        """Append to the streams' files, without fsync; returns the segment count of each stream
        written.
        """
        segments = {}
        for stream_id, items in batches.items():
            log = self._logs.get(stream_id)
            if log is not None:
                log.append(items)
                segments[stream_id] = log.segment_count
        return segments

    def read(self, stream_id: int, offset: int, bytes_max: int) -> list[Batch]:
        """Whole batches from the one that holds `offset`; empty if the stream is gone or ends
        there.
        """
        log = self._logs.get(stream_id)
        return log.read(offset, bytes_max) if log is not None else []

    def sync(self) -> dict[int, LogState]:
        """Make everything written durable and say how far each log reaches."""
        return {stream_id: log.sync() for stream_id, log in self._logs.items()}

    def remove(self, stream_ids: Sequence[int]) -> None:
        """Delete the files of dropped streams, once no checkpoint mentions them."""
        for stream_id in stream_ids:
            log = self._logs.pop(stream_id, None)
            if log is not None:
                log.close()
                self._files.remove_folder(self._folder.stream_folder(stream_id))

    def segment_counts(self) -> dict[int, int]:
        return {stream_id: log.segment_count for stream_id, log in self._logs.items()}

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
