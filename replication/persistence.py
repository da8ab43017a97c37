"""What was applied, on its way to the streams' files; checkpoints of it; the log given up behind.

The jobs of the streams lane run in order: what is written before a checkpoint's job is exactly what
was applied when it was asked for.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from ..storage import checkpoint
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from . import upstream
from .config import Limits
from .jobs import Jobs
from .journal import RaftJournal
from .machine import StateMachine
from .measures import Measures
from .runtime import Lane
from .snapshot import Snapshot
from .stream import Stream
from .stream_files import StreamFiles
from .unwritten import Unwritten

logger = logging.getLogger(__name__)

WRITE_BYTES = 256 * 1024
WRITE_DELAY_S = 0.02
"""Applied batches are written together when there are so many bytes of them, or the first one has
waited so long: until then they are served from memory, and the write-ahead log has them."""
CHECKPOINT_AGAIN_S = 5.0
"""After one that found no room."""


class Persistence:
    def __init__(
        self,
        *,
        jobs: Jobs,
        machine: StateMachine,
        journal: RaftJournal,
        stream_files: StreamFiles,
        folder: DataFolder,
        files: FileSystem,
        limits: Limits,
        measures: Measures,
    ) -> None:
        self._jobs = jobs
        self._machine = machine
        self._journal = journal
        self._stream_files = stream_files
        self._folder = folder
        self._files = files
        self._limits = limits
        self._measures = measures
        self._is_cluster_id_kept = folder.cluster_id is not None
        self._is_repaired = not folder.is_repairing
        self._writing = False
        self.write_at = float("inf")
        """When what was applied has waited long enough for its files."""
        self._checkpointing = False
        self._checkpoint_began = 0.0
        self._checkpoint_at = upstream.now() + limits.checkpoint_s
        self._no_checkpoint_until = float("-inf")
        self._checkpoint_index = machine.applied_index
        self._measured = (0, 0, 0)
        self._pinned_index: int | None = None

    def poll(self, pinned_index: int | None, *, is_synced: bool) -> None:
        """Called now and then. `pinned_index`: what a snapshot covers that somebody fetches.
        `is_synced`: this node has applied what was committed before it started.
        """
        self._pinned_index = pinned_index
        if not self._writing:
            self._write_if_due()
        self._keep_cluster_id()
        if not self._is_repaired and is_synced and self._is_counted_on():
            self._is_repaired = True
            self._jobs.run(Lane.STREAMS, self._folder.end_repair)
        self._maybe_checkpoint()

    def _keep_cluster_id(self) -> None:
        cluster_id = self._machine.cluster_id
        if cluster_id is not None and not self._is_cluster_id_kept:
            self._is_cluster_id_kept = True
            self._jobs.run(Lane.STREAMS, partial(self._folder.keep_cluster_id, cluster_id))

    def _is_counted_on(self) -> bool:
        """Is what is in this folder now as good to the other members as it shall be?"""
        members, folder = self._machine.members, self._folder
        member = members.get(folder.node_id) if members is not None else None
        if member is None or member.incarnation != folder.incarnation:
            return False
        return not member.becomes_voter

    # ---- the streams' files

    def _write_if_due(self) -> None:
        machine, now = self._machine, upstream.now()
        if not (machine.unwritten or machine.created):
            return
        if self.write_at == float("inf"):
            self.write_at = now + WRITE_DELAY_S
        if machine.created or machine.unwritten_bytes >= WRITE_BYTES or now >= self.write_at:
            self._write_now()

    def _write_now(self) -> None:
        """One job at a time, so that a busy node writes large pieces."""
        self._writing, self.write_at = True, float("inf")
        created, self._machine.created = self._machine.created, []
        taken = self._machine.take_unwritten()
        compacting = {stream_id for stream_id, _ in self._machine.compactions}
        job = partial(self._write, created, taken, compacting)
        self._jobs.run(Lane.STREAMS, job, partial(self._written, taken))

    def _write(
        self, created: list[Stream], taken: dict[int, Unwritten], compacting: set[int]
    ) -> None:
        for stream in created:
            self._stream_files.create(stream.id)
        self._stream_files.write(taken, compacting)

    def _written(self, taken: dict[int, Unwritten], done: Future[None]) -> None:
        self._writing = False
        done.result()
        self._machine.written(taken)

    # ---- checkpoints

    def _maybe_checkpoint(self) -> None:
        applied_index = self._machine.applied_index
        if self._checkpointing or applied_index == self._checkpoint_index:
            return
        if upstream.now() < self._no_checkpoint_until:
            return
        if self._machine.dropped:
            self._machine.dropped = False
            soon = upstream.now() + self._limits.checkpoint_after_trim_s
            self._checkpoint_at = min(self._checkpoint_at, soon)
        is_large = self._bytes_since_checkpoint() >= self._limits.checkpoint_bytes
        if is_large or upstream.now() >= self._checkpoint_at:
            self.checkpoint(lambda: None)

    def _bytes_since_checkpoint(self) -> int:
        """Measured once for every index applied: there are many turns without one."""
        covered, applied = self._checkpoint_index, self._machine.applied_index
        if self._measured[:2] != (covered, applied):
            self._measured = (covered, applied, self._journal.bytes_between(covered, applied))
        return self._measured[2]

    def checkpoint(self, then: Callable[[], None]) -> None:
        """Make the state as of now durable, so that the log before it is not needed to recover."""
        self._checkpointing = True
        self._checkpoint_began = upstream.now()
        self._write_now()
        snapshot = Snapshot(self._machine)
        deleted, self._machine.deleted = self._machine.deleted, []
        job = partial(self._save, snapshot, deleted)
        self._jobs.run(Lane.STREAMS, job, partial(self._saved, snapshot, deleted, then))

    def _save(self, snapshot: Snapshot, deleted: list[int]) -> bool:
        """Returns False if the disk has no room for a checkpoint: the last one counts on."""
        states = self._stream_files.sync()
        try:
            checkpoint.save(self._files, self._folder.path, snapshot.sections(states))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        self._stream_files.remove(deleted)
        return True

    def _saved(
        self,
        snapshot: Snapshot,
        deleted: list[int],
        then: Callable[[], None],
        done: Future[bool],
    ) -> None:
        self._checkpointing = False
        if done.result():
            self._measures.checkpoints += 1
            self._measures.checkpoint_s = upstream.now() - self._checkpoint_began
            self._checkpoint_index = snapshot.meta.applied_index
            self._checkpoint_at = upstream.now() + self._limits.checkpoint_s
            self._forget_log()
        else:
            logger.warning("no room for a checkpoint", extra={"again_in_s": CHECKPOINT_AGAIN_S})
            self._machine.deleted += deleted
            self._no_checkpoint_until = upstream.now() + CHECKPOINT_AGAIN_S
        then()

    def skip_damaged_log(self, index: int) -> None:
        """Entries from `index` on cannot be read any more: do without, once a checkpoint covers
        them. Whoever lacks them fetches a snapshot.
        """
        if index <= self._checkpoint_index:
            self._journal.wal.forget_through(self._checkpoint_index)
        else:
            self.renew()

    def renew(self) -> None:
        """Take a checkpoint now, unless one is under way."""
        if not self._checkpointing:
            self.checkpoint(lambda: None)

    def _forget_log(self) -> None:
        """Give up the log that the checkpoint covers, except for what followers may still need."""
        journal, covered = self._journal, self._checkpoint_index
        if self._pinned_index is not None:
            covered = min(covered, self._pinned_index)
        low, high = journal.base_index, covered
        while low < high:
            middle = (low + high + 1) // 2
            kept = journal.bytes_between(middle, journal.last_index)
            if kept >= self._limits.wal_retain_bytes:
                low = middle
            else:
                high = middle - 1
        if low > journal.base_index:
            self._jobs.run(Lane.STREAMS, journal.wal.drop_before(low + 1))
