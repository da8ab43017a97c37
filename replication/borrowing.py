"""Takes from another node what compaction made there, and is not to be had here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from . import upstream
from .commands import CompactedRun
from .compaction_work import FetchedRun, Outcome
from .jobs import Jobs
from .messages import Message, RepairData, RepairRead
from .raft import RaftCore
from .runtime import Lane
from .stream_files import StreamFiles

COPY_BYTES = 256 << 10
ANSWER_S = 1.0
FIRST_REQUEST = 1 << 32
"""Numbers of requests that are not those of repairs."""


class Borrowing:
    """One run at a time, from one node after the other."""

    def __init__(
        self,
        jobs: Jobs,
        core: RaftCore,
        stream_files: StreamFiles,
        post: Callable[[str, Message], object],
        done: Callable[[CompactedRun, bool], None],
    ) -> None:
        """`done` hears whether the new segment is in its place."""
        self._jobs = jobs
        self._core = core
        self._stream_files = stream_files
        self._post = post
        self._done = done
        self._work: FetchedRun | None = None
        self._stream_id = 0
        self._run: CompactedRun | None = None
        self._peers: list[str] = []
        self._request = FIRST_REQUEST
        self._asked_at: float | None = None

    @property
    def is_active(self) -> bool:
        return self._run is not None

    def begin(self, stream_id: int, run: CompactedRun) -> None:
        """Ask for it; the leader first."""
        if self._run is not None:
            return
        self._stream_id, self._run = stream_id, run
        self._peers = self._core.connected_members()
        self._ask_anew()

    def poll(self, now: float) -> None:
        """Called every turn."""
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
        assert self._run is not None
        self._work = FetchedRun(self._stream_files, self._stream_id, self._run)
        self._ask()

    def _ask(self) -> None:
        assert self._work is not None
        assert self._run is not None
        self._request += 1
        self._asked_at = upstream.now()
        place = (self._stream_id, self._work.due_offset, COPY_BYTES, self._run.generation)
        self._post(self._peers[0], RepairRead(self._request, *place))

    def _end(self, *, is_done: bool) -> None:
        run, self._run, self._asked_at = self._run, None, None
        if is_done:
            self._work = None
        else:
            self._abandon()
        assert run is not None
        self._done(run, is_done)

    def _abandon(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._jobs.run(Lane.STREAMS, work.abandon)
