"""Has compaction done, in the background.

    leader   due_pass → PassWork: which records stay? → the new segment, durable, under no name yet
               → CompactStream through the log → apply: the list of segments changes, at once
    all      machine.compactions → RunWork: make the same of the same → compare → swap

The leader has its segment already and only puts it in its place. All steps are short jobs on the
streams lane, no faster than the settings allow, so that neither reads nor appends wait for them.

A node on which something else comes out (a bug; a library that packs otherwise), or that cannot
read what it has to compact, takes the new segment from another node: `Borrowing`. Until that is
whole, it keeps what it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..storage.errors import DamagedBatch
from ..storage.index import POSITION_MAX
from . import upstream
from .borrowing import Borrowing
from .commands import Command, CompactedRun, CompactStream
from .compaction import due_pass
from .compaction_work import Outcome, PassWork, RunWork, Step, or_damage
from .config import Limits
from .jobs import Jobs
from .machine import StateMachine
from .measures import Measures
from .messages import Message, RepairData
from .raft import RaftCore
from .repair import Repairs
from .runtime import Lane
from .segments import SegmentRow
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)

STEP_BYTES_MIN = 16 << 10
"""What a step costs at least, however little it read."""
LATE_S_MAX = 1.0
WAIT_S = 0.05
"""For segments that are on their way to the files."""
AGAIN_S = 1.0
"""After something went wrong."""
BEHIND_MAX = 16
"""With more runs to do than that nothing is spared."""

Propose = Callable[[Command, int, Callable[[Any], None]], None]


class Compactor:
    def __init__(
        self,
        *,
        jobs: Jobs,
        core: RaftCore,
        machine: StateMachine,
        stream_files: StreamFiles,
        limits: Limits,
        measures: Measures,
        repairs: Repairs,
        post: Callable[[str, Message], object],
        propose: Propose,
        wall_ms: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        """`propose` takes a command, its size and who wants the result; `wake` makes a `poll` come
        soon.
        """
        self._jobs = jobs
        self._core = core
        self._machine = machine
        self._stream_files = stream_files
        self._limits = limits
        self._measures = measures
        self._repairs = repairs
        self._propose = propose
        self._wall_ms = wall_ms
        self._wake = wake
        self._is_busy = False
        self._step_began = 0.0
        self._next_at = 0.0
        self._look_at = upstream.now() + limits.compaction_period_s
        self._work: RunWork | None = None
        self._pass: PassWork | None = None
        self._proposed: CompactedRun | None = None
        self._borrowing = Borrowing(jobs, core, stream_files, post, self._borrowed)

    @property
    def is_passing(self) -> bool:
        """Does this node look a stream through, and have it compacted?"""
        return self._pass is not None

    def poll(self, now: float, *, is_serving: bool, is_fetching: bool) -> None:
        """Called now and then. `is_serving`: another node fetches a snapshot from here, whose
        segments shall stay. `is_fetching`: this node fetches one, and counts on what it has.
        """
        self._borrowing.poll(now)
        if self._is_busy or is_fetching or self._borrowing.is_active or now < self._next_at:
            return
        self._step_began = now
        if self._machine.compactions:
            self._do_run()
        elif not self._core.is_leader() or self._machine.applied_term != self._core.term():
            self._end_pass()
        elif self._proposed is None and not is_serving:
            self._do_pass(now)

    def on_data(self, peer: str, message: RepairData) -> bool:
        """A copy arrived; False if it was asked for by somebody else."""
        return self._borrowing.on_data(peer, message)

    def _run(self, job: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
        self._is_busy = True
        self._jobs.run(Lane.STREAMS, job, done)

    def _spend(self, size: int) -> None:
        self._is_busy = False
        self._measures.compacted_bytes += size
        now = upstream.now()
        self._measures.compaction_s += now - self._step_began
        if len(self._machine.compactions) > BEHIND_MAX:
            self._next_at = now
        else:
            pause_s = max(size, STEP_BYTES_MIN) / self._limits.compaction_bytes_per_s
            self._pause_until(max(self._next_at, now - LATE_S_MAX) + pause_s)

    def _pause_until(self, when: float) -> None:
        self._next_at = when
        self._jobs.call_at(when, self._wake)

    # ---- what is agreed upon

    def _do_run(self) -> None:
        stream_id, run = self._machine.compactions[0]
        if self._row_of(stream_id, run) is None:
            self._finish(stream_id, lambda each: each is run)
            return
        work = self._work
        if work is None or work.run is not run:
            self._forget_work()
            made = None
            if self._pass is not None and self._proposed == run:
                made, self._proposed = self._pass.hand_over(), None
            elif self._pass is not None:
                # Another leader's: the segments that this pass looks at are about to change.
                self._end_pass()
            work = self._work = RunWork(self._stream_files, stream_id, run, made)
        self._run(partial(or_damage, work.step), partial(self._run_stepped, work))

    def _run_stepped(self, work: RunWork, done: Future[tuple[int, Outcome] | DamagedBatch]) -> None:
        result = done.result()
        if isinstance(result, DamagedBatch):
            self._spend(0)
            self._forget_work()
            self._pause_until(upstream.now() + AGAIN_S)
            self._repairs.report(work.stream_id, result, partial(self._repaired, work.run))
            return
        size, outcome = result
        self._spend(size)
        if not self._is_first(work.run):
            self._forget_work()
        elif outcome is Outcome.DONE:
            self._measures.compactions += 1
            self._measures.compaction_written_bytes += work.bytes_written
            self._measures.compaction_removed_records += work.records_removed
            self._finish(work.stream_id, lambda each: each is work.run)
        elif outcome is Outcome.WAITS:
            self._pause_until(upstream.now() + WAIT_S)
        elif outcome is Outcome.DIFFERS:
            logger.error(
                "compaction came to something else than on the leader",
                extra={"stream_id": work.stream_id, "reason": f"offset {work.run.base_offset}"},
            )
            self._forget_work()
            self._borrow(work.run)

    def _is_first(self, run: CompactedRun) -> bool:
        """Is it still to be done? Its stream may have been deleted."""
        return bool(self._machine.compactions) and self._machine.compactions[0][1] is run

    def _row_of(self, stream_id: int, run: CompactedRun) -> SegmentRow | None:
        """What has become of a run by now; None if all of it was trimmed away."""
        for stream in self._machine.streams.values():
            if stream.id == stream_id:
                return stream.segments.row_at(run.base_offset)
        return None

    def _finish(self, stream_id: int, done: Callable[[CompactedRun], bool]) -> None:
        self._work = None
        self._machine.compacted(stream_id, done)
        self._wake()

    def _repaired(self, run: CompactedRun, is_mended: bool) -> None:
        """What was to be compacted is readable again; or nobody has it any more, because the others
        have compacted it.
        """
        if not is_mended and self._is_first(run) and not self._is_busy:
            self._borrow(run)

    def _borrow(self, run: CompactedRun) -> None:
        stream_id = self._machine.compactions[0][0]
        row = self._row_of(stream_id, run)
        if row is not None:
            self._borrowing.begin(stream_id, row)

    def _borrowed(self, stream_id: int, row: SegmentRow, is_done: bool) -> None:
        """Of the runs in its range some may have come since; these are made of it."""
        if is_done:
            self._finish(
                stream_id,
                lambda run: (
                    row.base_offset <= run.base_offset < row.end_offset
                    and run.generation <= row.generation
                ),
            )
        else:
            self._pause_until(upstream.now() + AGAIN_S)

    def _forget_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._jobs.run(Lane.STREAMS, work.abandon)

    # ---- what the leader proposes

    def _do_pass(self, now: float) -> None:
        work = self._pass
        if work is None:
            if now < self._look_at:
                return
            self._look_at = now + self._limits.compaction_period_s
            plan = due_pass(self._machine.streams.values(), self._wall_ms())
            if plan is None:
                return
            keys_max = self._limits.compaction_keys_max
            work = self._pass = PassWork(self._stream_files, plan, keys_max)
        self._run(partial(or_damage, work.step), partial(self._pass_stepped, work))

    def _pass_stepped(self, work: PassWork, done: Future[Step | DamagedBatch | None]) -> None:
        step = done.result()
        if isinstance(step, DamagedBatch):
            self._spend(0)
            self._end_pass()
            self._repairs.report(work.plan.stream_id, step)
            return
        self._spend(step.size if step is not None else 0)
        if work is not self._pass:
            return
        if step is None:
            self._end_pass()
        elif step.below is not None:
            if step.below > work.plan.cleaned_until:
                self._agree(work, None, step.below)
            self._end_pass()
        elif step.run is not None:
            if step.run.size_bytes > POSITION_MAX:
                logger.warning("a segment does not get smaller", extra={"stream": work.plan.name})
                self._end_pass()
                return
            self._proposed = step.run
            self._agree(work, step.run, 0)

    def _agree(self, work: PassWork, run: CompactedRun | None, cleaned_until: int) -> None:
        plan = work.plan
        command = CompactStream(plan.name, plan.stream_id, run, cleaned_until, self._wall_ms())
        size = len(run.mask) if run is not None else 0
        self._propose(command, size, partial(self._agreed, work, run))

    def _agreed(self, work: PassWork, run: CompactedRun | None, outcome: object) -> None:
        if run is None:
            # There may be more, if this pass could not go all the way.
            self._look_at = upstream.now()
        elif outcome is not True and work is self._pass and run is self._proposed:
            self._end_pass()

    def _end_pass(self) -> None:
        work, self._pass, self._proposed = self._pass, None, None
        if work is not None:
            self._jobs.run(Lane.STREAMS, work.abandon)
