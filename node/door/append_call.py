"""One append that came through the door, from its frame to its answer.

It costs no task and no timer of its own beside the replica's: what it needs is at hand, but for
conditions, and records that another thread has to look at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Final

import msgspec
from msgspec import UnsetType

from ...replication.errors import ReplicationError
from ...replication.replica import Replica
from ...replication.types import Receipt
from ..http.context import Context
from ..http.problems import Problem, invalid, problem_of
from ..http.records import checked_key, conditions_of
from ..http.sent_batch import Sent, append_of, small_append_of
from ..http.streams import checked_name
from . import frames
from .answers import problem_frame, receipt_frame
from .frames import AppendHead, Frame, MalformedFrame

logger = logging.getLogger(__name__)

ROUTE: Final = ("door", "APPEND")
"""Under which the metrics count."""
_head_decoder: Final = msgspec.msgpack.Decoder(AppendHead)


class AppendCall:
    """`answer` is called once, with the frame to send; maybe before `begin` returns."""

    __slots__ = ("_answer", "_began", "_context", "_frame", "_taken", "_task")

    def __init__(self, context: Context, frame: Frame, answer: Callable[[bytes], None]) -> None:
        self._context = context
        self._frame = frame
        self._answer = answer
        self._began = perf_counter()
        self._taken = 0
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._context.begin()
        try:
            self._start()
        except Exception as error:
            self._failed(error)

    def _start(self) -> None:
        context = self._context
        context.check_stopping()
        if self._frame.kind != frames.APPEND:
            raise invalid("kind", f"wanted {frames.APPEND}; came {self._frame.kind}")
        replica = context.live_replica()
        if not replica.is_leader:
            raise _no_leader(replica)
        context.bodies.take(len(self._frame.payload))
        self._taken = len(self._frame.payload)
        sent, timeout_s = _sent(self._frame.payload)
        append = None if sent.conditions else small_append_of(context, sent)
        if append is None:
            self._task = asyncio.get_running_loop().create_task(self._slowly(sent, timeout_s))
        else:
            replica.submit_append(append, self._settled, timeout_s=timeout_s)

    async def _slowly(self, sent: Sent, timeout_s: float) -> None:
        try:
            append = await append_of(self._context, sent)
            receipt = await self._context.live_replica().append(append, timeout_s=timeout_s)
        except Exception as error:
            self._failed(error)
        else:
            self._settled(receipt)

    def _settled(self, outcome: Receipt | ReplicationError) -> None:
        if isinstance(outcome, ReplicationError):
            self._failed(outcome)
        else:
            self._end(200, receipt_frame(self._context, self._frame.request_id, outcome))

    def _failed(self, error: Exception) -> None:
        token = self._context.request_id(None)
        problem = problem_of(error, writes=True)
        if not isinstance(error, Problem | ReplicationError):
            logger.error("request failed", exc_info=error, extra={"request_id": token})
        if problem.code == "no_leader" and self._context.replica is not None:
            problem = _no_leader(self._context.replica)
        answer = problem_frame(self._context, self._frame.request_id, problem, token)
        self._end(problem.status, answer)

    def _end(self, status: int, answer: bytes) -> None:
        context = self._context
        context.bodies.give_back(self._taken)
        context.traffic.count_answer(ROUTE, status)
        context.traffic.time(ROUTE, perf_counter() - self._began)
        context.end()
        self._answer(answer)


def _sent(payload: bytes) -> tuple[Sent, float]:
    """Return the append, and how long it may take. Raises Problem."""
    try:
        packed, batch = frames.append_parts(payload)
        head = _head_decoder.decode(packed)
    except (MalformedFrame, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid("head", str(error)) from error
    sent = Sent(
        checked_name("stream", head.stream, writes=True),
        batch,
        None if isinstance(head.if_offset, UnsetType) else head.if_offset,
        conditions_of(head.condition),
        None
        if isinstance(head.idempotency_key, UnsetType)
        else checked_key(head.idempotency_key, "idempotency_key"),
    )
    return sent, head.timeout_ms / 1000


def _no_leader(replica: Replica) -> Problem:
    """Return the refusal that says where to go."""
    leader, url = replica.leader_id, replica.leader_http
    detail = "nobody leads at the moment" if leader is None else f"the leader is {leader}"
    return Problem("no_leader", detail, leader=leader, leader_http=url)
