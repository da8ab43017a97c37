"""One connection that speaks frames: `frames.py` draws them, `node/DESIGN.md` has reasons.

Everything is bounded, and what is full is not read on:

- requests under way by REQUESTS_MAX, and what they hold by the node's budget for bodies;
- a frame by what an HTTP body may have; one for which the budget has no room is read past;
- answers that the client does not take: reading stops, and after a while the connection ends.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import msgspec

from ..http.context import Context
from ..http.place import Place
from ..http.problems import Problem, invalid
from ..http.streams import checked_name
from ..units import KiB
from . import frames
from .answers import hello, problem_frame
from .append_call import ROUTE, AppendCall
from .feeds import ROUTE as FOLLOW_ROUTE
from .feeds import Follower
from .frames import FollowHead, Frame, FrameReader, MalformedFrame

REQUESTS_MAX: Final = 1024
"""Under way at a time on one connection."""
HEAD_BYTES_MAX: Final = 64 * KiB
"""A frame may have so much beside what is a body in HTTP."""
WATCH_S: Final = 30.0
"""So often somebody looks: a frame or an answer that made no way since then ends the connection."""
IDLE_S: Final = 600.0
"""A connection on which nothing was asked for so long is closed."""
_WRITE_BUFFER_BYTES: Final = 256 * KiB
_follow_decoder: Final = msgspec.msgpack.Decoder(FollowHead)


class Door(asyncio.Protocol):
    """Made when the first bytes have been seen, which are the first to be received."""

    def __init__(self, context: Context, place: Place) -> None:
        self._context = context
        self._place = place
        self._transport: asyncio.Transport
        self._reader = FrameReader(context.config.body_bytes_max + HEAD_BYTES_MAX)
        self._preamble = b""
        self._partial_taken = 0
        """Of the budget, for a frame that is not whole yet."""
        self._under_way = 0
        self._followers: dict[int, Follower] = {}
        self._answers: list[bytes] = []
        self._pushed_bytes = 0
        self._is_turn_due = False
        self._is_read_paused = False
        self._is_write_paused = False
        self._is_closing = False
        self._watch: asyncio.TimerHandle | None = None
        self._frames = 0
        self._resumed = 0
        self._seen = (-1, 0, False)
        """At the last look: frames, resumptions of writing, whether a frame had begun to come."""
        self._idle_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)
        self._watch_later()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._is_closing = True
        self._context.strangers.discard(self._transport)
        self._place.leave()
        self._context.bodies.give_back(self._partial_taken)
        self._partial_taken = 0
        self._answers.clear()
        for follower in self._followers.values():
            follower.end()
        self._followers.clear()
        if self._watch is not None:
            self._watch.cancel()

    # ---- what comes

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        if len(self._preamble) < len(frames.PREAMBLE):
            data = self._greeted(data)
        if data:
            self._reader.feed(data)
            self._work()

    def _greeted(self, data: bytes) -> bytes:
        """Return what follows the preamble."""
        size = len(frames.PREAMBLE)
        rest = data[size - len(self._preamble) :]
        self._preamble += data[: size - len(self._preamble)]
        if len(self._preamble) < size:
            return b""
        if self._place.is_surplus:
            self._end(Problem("throttled", f"{self._context.connections} connections are open"))
            return b""
        if self._preamble != frames.PREAMBLE:
            self._end(invalid("preamble", f"this node speaks version {frames.VERSION}"))
            return b""
        greeting = hello(self._context, self._reader.size_max, REQUESTS_MAX)
        self._transport.write(greeting)
        return rest

    def _work(self) -> None:
        """Begin on what has arrived, as far as there is room."""
        self._context.bodies.give_back(self._partial_taken)
        self._partial_taken = 0
        try:
            self._begin_frames()
        except MalformedFrame as error:
            self._end(invalid("frame", str(error)))
        self._regulate()

    def _begin_frames(self) -> None:
        while not self._is_full and not self._is_closing:
            frame = self._reader.next()
            if frame is None:
                self._hold_partial()
                return
            self._frames += 1
            self._place.heard()
            if frame.kind in (frames.FOLLOW, frames.CREDIT, frames.UNFOLLOW):
                self._on_follow(frame)
            else:
                self._under_way += 1
                AppendCall(self._context, frame, self._answer).begin()

    def _on_follow(self, frame: Frame) -> None:
        """Begin, feed or end a read that stays open."""
        follower = self._followers.get(frame.request_id)
        if frame.kind == frames.FOLLOW:
            self._follow(frame)
        elif frame.kind == frames.CREDIT:
            credit = frames.credit_of(frame.payload)
            if follower is not None:
                follower.allow(credit)
        elif follower is not None:
            del self._followers[frame.request_id]
            follower.end()

    def _follow(self, frame: Frame) -> None:
        context = self._context
        try:
            context.live_replica()
            if frame.request_id in self._followers:
                raise invalid("request_id", "is in use for another FOLLOW")
            head = _follow_head(frame.payload)
            follower = context.feeds.follow(self, frame.request_id, head)
        except Problem as problem:
            context.traffic.count_answer(FOLLOW_ROUTE, problem.status)
            self.push(problem_frame(context, frame.request_id, problem))
        else:
            self._followers[frame.request_id] = follower

    def _hold_partial(self) -> None:
        """Count what there is of a frame against the budget, or read past it."""
        held = self._reader.held_bytes
        try:
            self._context.bodies.take(held)
            self._partial_taken = held
        except Problem as problem:
            request_id = self._reader.skip()
            if request_id is not None:
                self._context.traffic.count_answer(ROUTE, problem.status)
                self._transport.write(problem_frame(self._context, request_id, problem))

    @property
    def _is_full(self) -> bool:
        return self._under_way >= REQUESTS_MAX or self._is_write_paused

    def _regulate(self) -> None:
        """Read on only while there is room."""
        if self._is_closing or self._is_full == self._is_read_paused:
            return
        self._is_read_paused = self._is_full
        if self._is_read_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._regulate()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._resumed += 1
        for follower in self._followers.values():
            follower.look_for_room()
        if self._is_read_paused:
            self._have_turn()

    # ---- what goes

    def _answer(self, answer: bytes) -> None:
        """Send what an `AppendCall` ended with."""
        self._under_way -= 1
        if self._is_closing:
            return
        self._answers.append(answer)
        if self._under_way or self._is_read_paused:
            self._have_turn()
        else:
            self._flush()

    def push(self, frame: bytes) -> None:
        """Send what nobody waits for, with what else goes soon."""
        if self._is_closing:
            return
        self._answers.append(frame)
        self._pushed_bytes += len(frame)
        if self._pushed_bytes >= _WRITE_BUFFER_BYTES:
            self._flush()
        else:
            self._have_turn()

    def forget(self, request_id: int) -> None:
        """A follower has ended by itself."""
        self._followers.pop(request_id, None)

    @property
    def is_choked(self) -> bool:
        """The client does not take what was sent already."""
        return self._is_write_paused

    def _have_turn(self) -> None:
        """Soon: appends end many at a time, and one write for all costs as much as one for each."""
        if not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        if self._is_closing:
            return
        self._flush()
        if self._is_read_paused and not self._is_full:
            self._work()

    def _flush(self) -> None:
        answers, self._answers, self._pushed_bytes = self._answers, [], 0
        if answers:
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))

    def _end(self, problem: Problem) -> None:
        """Say why, and close."""
        self._flush()
        self._transport.write(problem_frame(self._context, 0, problem))
        self._is_closing = True
        self._transport.close()

    # ---- what does not come, or go

    def _watch_later(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def _look(self) -> None:
        """End a connection on which nothing has moved since the last look."""
        has_part = self._reader.held_bytes > 0
        before, self._seen = self._seen, (self._frames, self._resumed, has_part)
        is_in_use = self._under_way > 0 or bool(self._followers)
        if self._seen != before or (is_in_use and not self._is_write_paused):
            self._idle_s = 0.0
        elif self._is_write_paused:
            self._transport.abort()
        elif has_part:
            self._end(invalid("frame", f"did not arrive within {WATCH_S:.0f} s"))
        else:
            self._idle_s += WATCH_S
            if self._idle_s >= IDLE_S:
                self._transport.close()
        self._watch_later()


def _follow_head(payload: bytes) -> FollowHead:
    """Raises Problem."""
    try:
        head = _follow_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid("head", str(error)) from error
    checked_name("stream", head.stream, writes=False)
    return head
