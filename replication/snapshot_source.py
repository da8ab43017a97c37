"""What a leader offers to a follower that is too far behind for the log: its newest checkpoint.

The checkpoint file is kept open while somebody fetches, so that a newer one may take its name, and
the log keeps everything behind it. Segments only grow; one that was trimmed meanwhile makes the
follower begin again with a newer snapshot. Damaged bytes are not sent: they are mended, and the
follower asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ..storage import checkpoint
from ..storage.errors import Damaged, DamagedBatch
from ..storage.filesystem import File, FileSystem
from ..storage.folder import DataFolder
from ..storage.names import SegmentName, store_path
from . import upstream
from .jobs import Jobs
from .messages import SnapshotRead
from .runtime import Lane
from .snapshot import meta_of
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

IDLE_S = 30.0
"""A snapshot that nobody read from so long is given up."""
PIECE_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Pinned:
    """A checkpoint somebody fetches."""

    index: int
    term: int
    size: int
    file: File


class Rotten(NamedTuple):
    """What was to be sent is damaged."""

    stream_id: int
    damage: DamagedBatch


class SnapshotSource:
    def __init__(
        self,
        files: FileSystem,
        folder: DataFolder,
        stream_files: StreamFiles,
        jobs: Jobs,
        on_damaged: Callable[[], None],
        on_rotten: Callable[[int, DamagedBatch], None],
    ) -> None:
        """`on_damaged`: the checkpoint cannot be read any more; another one is wanted.

        `on_rotten`: a stream's segment is damaged; it has to be mended.
        """
        self.pinned: Pinned | None = None
        self._files = files
        self._folder = folder
        self._stream_files = stream_files
        self._jobs = jobs
        self._on_damaged = on_damaged
        self._on_rotten = on_rotten
        self._opening = False
        self._read_at = 0.0

    def want(self) -> None:
        """Some follower needs a snapshot: pin the newest, if none is pinned."""
        if self.pinned is None and not self._opening:
            self._opening = True
            self._read_at = upstream.now()
            self._jobs.run(Lane.STREAMS, self._open, self._opened)

    def _open(self) -> Pinned | None:
        path = checkpoint.path_in(self._folder.path)
        if not self._files.exists(path):
            return None
        meta = meta_of(checkpoint.read(self._files, path))
        file = self._files.open(path)
        return Pinned(meta.applied_index, meta.applied_term, file.size(), file)

    def _opened(self, done: Future[Pinned | None]) -> None:
        self._opening = False
        try:
            self.pinned = done.result()
        except Damaged as damage:
            logger.error("the checkpoint is damaged", extra={"reason": str(damage)})
            self._on_damaged()

    def poll(self) -> None:
        """Called now and then: give up what nobody reads."""
        if self.pinned is not None and upstream.now() - self._read_at > IDLE_S:
            self.release()

    def release(self) -> None:
        if self.pinned is not None:
            file, self.pinned = self.pinned.file, None
            self._jobs.run(Lane.STREAMS, file.close)

    def serve(
        self,
        request: SnapshotRead,
        answer: Callable[[bytes | None], None],
    ) -> None:
        """Answer with the bytes asked for, None if the snapshot is gone; no answer if they are
        damaged.
        """
        pinned = self.pinned
        if pinned is None or request.index != pinned.index:
            answer(None)
            return
        self._read_at = upstream.now()
        job = partial(self._read, pinned.file, request)
        self._jobs.run(Lane.STREAMS, job, partial(self._served, answer))

    def _read(self, file: File, request: SnapshotRead) -> bytes | Rotten | None:
        length = min(request.length, PIECE_BYTES_MAX)
        stream_id, base_offset, position = request.stream_id, request.base_offset, request.position
        if stream_id is None:
            return file.read_at(position, length)
        name = SegmentName(base_offset, request.generation)
        path = store_path(self._folder.stream_folder(stream_id), *name)
        if not self._files.exists(path):
            return None
        try:
            self._stream_files.check(stream_id, name, position, length)
        except DamagedBatch as damage:
            return Rotten(stream_id, damage)
        segment = self._files.open(path)
        try:
            return segment.read_at(position, length) or None
        finally:
            segment.close()

    def _served(
        self, answer: Callable[[bytes | None], None], done: Future[bytes | Rotten | None]
    ) -> None:
        data = done.result()
        if isinstance(data, Rotten):
            self._on_rotten(data.stream_id, data.damage)
            return
        if data is None:
            self.release()
        answer(data)
