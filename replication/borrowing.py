"""Takes from another node what compaction made there, and is not to be had here.

What is taken is the segment that the list has now. The others may have compacted it again since the
run that this node could not make, and have nothing older any more.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from . import upstream
from .compaction_work import FetchedSegment, Outcome
from .jobs import Jobs
from .messages import Message, RepairData, RepairRead
from .raft import RaftCore
from .runtime import Lane
from .segments import SegmentRow
from .stream_files import StreamFiles

COPY_BYTES = 256 << 10
ANSWER_S = 1.0
FIRST_REQUEST = 1 << 32
"""Numbers of requests that are not those of repairs."""


class Borrowing:
    """One segment at a time, from one node after the other."""

    def __init__(
        self,
        jobs: Jobs,
        core: RaftCore,
        stream_files: StreamFiles,
        post: Callable[[str, Message], object],
        done: Callable[[int, SegmentRow, bool], None],
    ) -> None:
        """`done` hears whether the new segment is in its place."""
        self._jobs = jobs
        self._core = core
        self._stream_files = stream_files
        self._post = post
        self._done = done
        self._work: FetchedSegment | None = None
        self._stream_id = 0
        self._row: SegmentRow | None = None
        self._peers: list[str] = []
        self._request = FIRST_REQUEST
        self._asked_at: float | None = None

    @property
    def is_active(self) -> bool:
        return self._row is not None

    def begin(self, stream_id: int, row: SegmentRow) -> None:
        """Ask for it; the leader first."""
        if self._row is not None:
            return
        self._stream_id, self._row = stream_id, row
        self._peers = self._core.connected_members()
        self._ask_anew()

    def poll(self, now: float) -> None:
        """Called now and then."""
        if self._asked_at is not None and now - self._asked_at > ANSWER_S:
            self._turn_to_next()

    def on_data(self, peer: str, message: RepairData) -> bool:
        """A copy arrived, or a refusal; False if it is not for here."""
        if message.request < FIRST_REQUEST:
            return False
        is_asked = self._asked_at is not None and message.request == self._request
        if is_asked and self._peers and peer == self._peers[0]:
            self._asked_at = None
            if message.data is None:
                self._turn_to_next()
            else:
                assert self._work is not None
                job = partial(self._work.add, message.data)
                self._jobs.run(Lane.STREAMS, job, self._added)
        return True

    def _added(self, done: Future[Outcome]) -> None:
        outcome = done.result()
        if outcome is Outcome.DONE:
            self._end(is_done=True)
        elif outcome is Outcome.GOES_ON:
            self._ask()
        else:
            self._turn_to_next()

    def _turn_to_next(self) -> None:
        self._peers = self._peers[1:]
        self._ask_anew()

    def _ask_anew(self) -> None:
        self._abandon()
        if not self._peers:
            self._end(is_done=False)
            return
        assert self._row is not None
        self._work = FetchedSegment(self._stream_files, self._stream_id, self._row)
        self._ask()

    def _ask(self) -> None:
        assert self._work is not None
        assert self._row is not None
        self._request += 1
        self._asked_at = upstream.now()
        place = (self._stream_id, self._work.due_offset, COPY_BYTES, self._row.generation)
        self._post(self._peers[0], RepairRead(self._request, *place))

    def _end(self, *, is_done: bool) -> None:
        row, self._row, self._asked_at = self._row, None, None
        if is_done:
            self._work = None
        else:
            self._abandon()
        assert row is not None
        self._done(self._stream_id, row, is_done)

    def _abandon(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._jobs.run(Lane.STREAMS, work.abandon)
