"""What makes compaction safe."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from cute_logger.replication import install
from cute_logger.replication.compactor import Compactor
from cute_logger.replication.stream import Stream
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.replication.unwritten import Unwritten
from cute_logger.storage.batch import Batch
from cute_logger.storage.log import LogState
from cute_logger.storage.names import SegmentName
from cute_logger.storage.newest import NewestOffsets
from cute_logger.storage.segment_writer import SegmentWriter
from cute_logger.storage.store import Store
from support.mutations.registry import mutation
from support.mutations.snapshots import trimmed_files_go_first


@mutation("a compacted segment is in its place before it is synced", "SegmentWriter", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    original = SegmentWriter.finish

    def finish(self: SegmentWriter, digest: bytes) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Store, "sync", lambda self: None)
            original(self, digest)

    patch.setattr(SegmentWriter, "finish", finish)


mutation("files go before the checkpoint that forgets them", "Persistence._save", "power")(
    trimmed_files_go_first
)


@mutation("a pass goes on where there is no room for more keys", "NewestOffsets.add", "calm")
def _(patch: pytest.MonkeyPatch) -> None:
    original = NewestOffsets.add

    def add(self: NewestOffsets, batch: Batch) -> bool:
        original(self, batch)
        self.stopped_at = None
        return True

    patch.setattr(NewestOffsets, "add", add)


@mutation("tombstones go before anybody can have seen them", "Stream.tombstones_below", "calm")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stream, "tombstones_below", lambda self, now_ms: self.next_offset)


@mutation("a trim takes what a compaction needs", "StreamFiles.write", "crashes")
def _(patch: pytest.MonkeyPatch) -> None:
    original = StreamFiles.write

    def write(
        self: StreamFiles,
        streams: Mapping[int, Unwritten],
        compacting: Collection[int] = frozenset(),
    ) -> None:
        original(self, streams)

    patch.setattr(StreamFiles, "write", write)


@mutation("a snapshot keeps what was compacted there", "install.plan", "snapshots")
def _(patch: pytest.MonkeyPatch) -> None:
    def sizes(state: LogState) -> dict[SegmentName, int]:
        return {SegmentName(base): size for base, size in state.segments}

    patch.setattr(install, "_sizes", sizes)


@mutation("files are compacted while a snapshot counts on them", "Compactor.poll", "snapshots")
def _(patch: pytest.MonkeyPatch) -> None:
    original = Compactor.poll

    def poll(self: Compactor, now: float, *, is_serving: bool, is_fetching: bool) -> None:
        original(self, now, is_serving=False, is_fetching=False)

    patch.setattr(Compactor, "poll", poll)
