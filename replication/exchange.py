"""Snapshots between nodes: offered to who is behind the log, fetched when the leader offers one."""

from __future__ import annotations

from collections.abc import Callable

from ..storage.errors import DamagedBatch
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from .catchup import Catchup
from .gate import Gate
from .install import Staging
from .jobs import Jobs
from .messages import SnapshotData, SnapshotRead
from .progress import SnapshotMark
from .raft import RaftCore
from .snapshot_source import SnapshotSource
from .stream_files import StreamFiles


class SnapshotExchange:
    def __init__(
        self,
        *,
        jobs: Jobs,
        core: RaftCore,
        gate: Gate,
        stream_files: StreamFiles,
        folder: DataFolder,
        files: FileSystem,
        on_fetched: Callable[[], None],
        on_damaged: Callable[[], None],
        on_rotten: Callable[[int, DamagedBatch], None],
        bytes_per_s: int,
    ) -> None:
        """`on_fetched`: a snapshot is complete, this node has to open its folder anew.

        `on_damaged`: this node's own checkpoint cannot be read; another one is wanted.
        `on_rotten`: bytes of a segment that another node asked for are damaged here.

        `bytes_per_s`: how fast this node fetches one.
        """
        self._core = core
        self._gate = gate
        self._source = SnapshotSource(files, folder, stream_files, jobs, on_damaged, on_rotten)
        staging = Staging(files, folder)
        self._catchup = Catchup(staging, stream_files, jobs, gate.post, on_fetched, bytes_per_s)

    @property
    def pinned_index(self) -> int | None:
        """What the snapshot covers that others fetch from here; None if nobody does."""
        return self._source.pinned.index if self._source.pinned is not None else None

    @property
    def fetching_index(self) -> int | None:
        """What the snapshot covers that is being fetched; None if none is."""
        return self._catchup.index

    def poll(self) -> None:
        """Called now and then."""
        core, source, catchup = self._core, self._source, self._catchup
        if core.needs_snapshot:
            core.needs_snapshot = False
            source.want()
        source.poll()
        pinned = source.pinned
        core.snapshot = None
        if pinned is not None:
            core.snapshot = SnapshotMark(pinned.index, pinned.term, pinned.size)
        offered, core.offered = core.offered, None
        if offered is not None:
            catchup.offered(*offered)
        if catchup.index is not None and core.commit_index() >= catchup.index:
            catchup.cancel()

    def on_read(self, peer: str, request: SnapshotRead) -> None:
        def answer(data: bytes | None) -> None:
            self._gate.post(peer, SnapshotData(request.request, data))

        self._source.serve(request, answer)

    def on_data(self, peer: str, message: SnapshotData) -> None:
        self._catchup.arrived(peer, message)
