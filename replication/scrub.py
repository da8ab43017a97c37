"""Reads all segments and the checkpoint in the background, slowly, to find damage while other nodes
can still help.

One small job at a time on the streams lane, so that whoever wants something else from the disk
waits for one piece at most. At a damaged place it waits a while for the repair and goes on from
there; if that does not come, with the next segment: whoever cannot help with one place of a segment
will hardly help with the next.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Protocol

from ..storage import checkpoint
from ..storage.errors import Damaged, DamagedBatch
from ..storage.verify import Cursor
from .checkpoint_scrub import CheckpointScrub
from .config import Limits
from .jobs import Jobs
from .machine import StateMachine
from .measures import Measures
from .runtime import Lane
from .stream_files import StreamFiles

PIECE_BYTES = 64 << 10
STEP_BYTES_MIN = 16 << 10
"""What a job costs at least, however little it read."""
FIRST_S = 10.0
"""From the start to the first round."""
LATE_S_MAX = 1.0
"""What was missed beyond that is not made up for."""
MEND_S = 10.0


class Damages(Protocol):
    """Where damage is reported to."""

    def report(self, stream_id: int, damage: DamagedBatch) -> None: ...
    def is_damaged(self, stream_id: int, offset: int) -> bool: ...


class Scrub:
    def __init__(
        self,
        jobs: Jobs,
        machine: StateMachine,
        stream_files: StreamFiles,
        limits: Limits,
        measures: Measures,
        damages: Damages,
        checkpoint_scrub: CheckpointScrub,
    ) -> None:
        self._jobs = jobs
        self._machine = machine
        self._stream_files = stream_files
        self._limits = limits
        self._measures = measures
        self._damages = damages
        self._checkpoint = checkpoint_scrub
        self._is_at_checkpoint = False
        self._is_reading = False
        self._next_at: float | None = None
        self._streams: list[int] = []
        """Left in this round, the current one last."""
        self._cursor = Cursor()
        self._waits_for: DamagedBatch | None = None
        self._waits_until = 0.0

    def poll(self, now: float) -> None:
        """Called now and then."""
        if self._is_reading or not self._limits.scrub_bytes_per_s:
            return
        if self._next_at is None:
            self._next_at = now + min(FIRST_S, self._limits.scrub_pause_s)
        if now < self._next_at or self._is_waiting(now):
            return
        self._next_at = max(self._next_at, now - LATE_S_MAX)
        self._is_reading = True
        if not self._streams and not self._is_at_checkpoint:
            self._streams = [stream.id for stream in self._machine.streams.values()]
            self._cursor = Cursor()
            self._is_at_checkpoint = True
            self._checkpoint.begin()
        if self._is_at_checkpoint:
            self._jobs.run(Lane.STREAMS, self._checkpoint.step, self._checkpoint_stepped)
            return
        skips, self._waits_for = self._waits_for, None
        job = partial(self._step, self._streams[-1], self._cursor, skips)
        self._jobs.run(Lane.STREAMS, job, self._stepped)

    def _checkpoint_stepped(self, done: Future[checkpoint.Place | Damaged | None]) -> None:
        self._is_reading = False
        size = self._checkpoint.stepped(done.result())
        if size is None:
            self._is_at_checkpoint = False
        else:
            self._measures.scrubbed_bytes += size
        self._next(size or 0)

    def _next(self, size: int) -> None:
        """Rest for what was read, or until the next round."""
        assert self._next_at is not None
        if self._streams or self._is_at_checkpoint:
            self._next_at += max(size, STEP_BYTES_MIN) / self._limits.scrub_bytes_per_s
        else:
            self._next_at += self._limits.scrub_pause_s

    def _is_waiting(self, now: float) -> bool:
        """Is the damage found last still being mended? If it was, forget it."""
        damage = self._waits_for
        if damage is None:
            return False
        if self._damages.is_damaged(self._streams[-1], damage.offset):
            return now < self._waits_until
        self._waits_for = None
        return False

    def _step(
        self, stream_id: int, at: Cursor, skips: DamagedBatch | None
    ) -> tuple[Cursor, int] | DamagedBatch | None:
        if skips is not None:
            return self._stream_files.skip_segment(stream_id, skips.offset), 0
        try:
            return self._stream_files.verify(stream_id, at, PIECE_BYTES)
        except DamagedBatch as damage:
            return damage

    def _stepped(self, done: Future[tuple[Cursor, int] | DamagedBatch | None]) -> None:
        self._is_reading = False
        assert self._next_at is not None
        found, size = done.result(), 0
        if isinstance(found, DamagedBatch):
            self._waits_for = found
            self._waits_until = self._next_at + MEND_S
            self._cursor = Cursor(found.offset)
            self._damages.report(self._streams[-1], found)
        elif found is not None:
            self._cursor, size = found
            self._measures.scrubbed_bytes += size
        else:
            self._streams.pop()
            self._cursor = Cursor()
        self._next(size)
