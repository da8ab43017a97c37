"""What makes compaction safe."""

from __future__ import annotations

import pytest

from cute_logger.replication import install
from cute_logger.replication.stream import Stream
from cute_logger.storage.log import LogState
from cute_logger.storage.names import SegmentName
from cute_logger.storage.segment_writer import SegmentWriter
from cute_logger.storage.store import Store
from support.mutations.registry import mutation
from support.mutations.snapshots import STOPS_IN_THE_MIDDLE, trimmed_files_go_first


@mutation("a compacted segment is in its place before it is synced", "SegmentWriter", "power")
def _(patch: pytest.MonkeyPatch) -> None:
    original = SegmentWriter.finish

    def finish(self: SegmentWriter, digest: bytes) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Store, "sync", lambda self: None)
            original(self, digest)

    patch.setattr(SegmentWriter, "finish", finish)


mutation(
    "files go before the checkpoint that forgets them", "Persistence._save", STOPS_IN_THE_MIDDLE
)(trimmed_files_go_first)


@mutation("tombstones go before anybody can have seen them", "Stream.tombstones_below", "calm")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stream, "tombstones_below", lambda self, now_ms: self.next_offset)


@mutation("a snapshot keeps what was compacted there", "install.plan", "snapshots")
def _(patch: pytest.MonkeyPatch) -> None:
    def sizes(state: LogState) -> dict[SegmentName, int]:
        return {SegmentName(base): size for base, size in state.segments}

    patch.setattr(install, "_sizes", sizes)
