"""Calls to the cluster: attempts at one node after the other until an answer is final."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, TypeVar

from . import wire
from .answers import ClusterInfo, cluster_from
from .connection import Answer, Connections, NoAnswer, NotSent
from .door import DoorAnswer, DoorAppend, Doors, Subscription
from .endpoints import Endpoints
from .errors import ClusterUnreachable, CuteError, NoLeader, OutcomeUnknown, Unavailable
from .frames import MalformedFrame, PageHead
from .retry import Attempts, Backoff, is_worth_repeating, pause_s, unknown
from .watch import LeaderWatch

_log = logging.getLogger(__name__)

ATTEMPT_S = 10.0
"""Longest wait for an answer, without a body's sending time and a long poll's waiting time. What
may be repeated is given up sooner if the other nodes have reason for it (`watch`)."""
CONNECT_S = 5.0
"""Longest wait for a door."""
PATIENCE_S = 5.0
"""A node that pushes nothing for so long, not even an empty page, is left."""
BODY_BYTES_PER_S = 2 * 1024 * 1024
SERVER_SHARE = 0.8
"""Share of an attempt's time the node is told to use, so that its answer can still arrive."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, before it is known which node serves it."""

    method: str
    path: str
    query: Mapping[str, int | str | bytes | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = wire.JSON
    wait_s: float = 0.0
    """How long the node may hold the request back (long poll)."""
    writes: bool = False
    """It changes something, so that without an answer the outcome is unknown."""
    repeatable: bool = True
    """It may be sent again after an attempt with unknown outcome: it happens once all the same."""
    leader_first: bool = False
    """The leader knows best, though every node answers."""
    tells_timeout: bool = False
    """It takes a `timeout_ms` parameter."""
    door: DoorAppend | None = None
    """It is this append, with the body as its batch: through the door of a node that has one."""


T = TypeVar("T")


class Caller:
    """Used on one event loop."""

    def __init__(self, endpoints: Endpoints, *, backoff: Backoff | None = None) -> None:
        self._endpoints = endpoints
        self._connections = Connections()
        self._doors = Doors()
        self._backoff = backoff or Backoff()
        self._watch = LeaderWatch(endpoints, self._cluster_at, self.learn)
        self._learning: asyncio.Task[None] | None = None

    async def call(self, call: Call, attempts: Attempts, decode: Callable[[Any], T]) -> T:
        """Return what `decode` (raises MalformedAnswer) makes of the body of the 2xx answer.

        Raises the refusal of an answer that is final (`attempts.unanswered` tells whether an
        earlier attempt may have been carried out), at the deadline OutcomeUnknown if one may have
        been, else the last refusal or ClusterUnreachable.
        """
        tried: dict[str, str] = {}
        refusal: CuteError | None = None
        while True:
            if attempts.remaining_s(monotonic()) <= 0:
                late = ClusterUnreachable("the time was up before the request could be sent")
                raise _final(call, refusal or late, attempts, tried)
            node = self._next_node(call, tried)
            outcome = await self._attempt(call, node, attempts, decode)
            if isinstance(outcome, _Answered):
                return outcome.value
            failure = outcome
            tried[node] = failure.detail
            if not is_worth_repeating(failure) and not isinstance(failure, ClusterUnreachable):
                raise failure
            if isinstance(failure, OutcomeUnknown) and call.writes and not call.repeatable:
                raise failure
            if not isinstance(failure, ClusterUnreachable | OutcomeUnknown):
                refusal = failure
            all_tried = len(tried) >= len(self._endpoints.urls)
            pause = pause_s(failure, attempts.rounds, self._backoff, all_tried=all_tried)
            if attempts.remaining_s(monotonic()) <= pause:
                raise _final(call, refusal or failure, attempts, tried) from failure
            if all_tried:
                attempts.rounds += 1
                tried.clear()
            await asyncio.sleep(pause)

    async def follow(
        self, stream: str, offset: int | None, after: int | None
    ) -> Subscription | None:
        """Have a node push the stream's pages; None if the best node has no door for that.

        Raises ClusterUnreachable.
        """
        tried = []
        for node in self._endpoints.candidates(monotonic(), leader_first=False):
            try:
                door = await self._doors.opened(node, CONNECT_S)
                return None if door is None else door.follow(node, stream, offset, after)
            except NotSent as error:
                self._endpoints.failed(node, monotonic())
                tried.append(f"{node}: {error}")
        raise ClusterUnreachable(f"no node is to be reached: {'; '.join(tried)}")

    async def next_page(self, subscription: Subscription) -> tuple[PageHead, bytes]:
        """Return the head and the batches of the page that comes next.

        Raises the refusal that ends the subscription, or ClusterUnreachable.
        """
        node = subscription.node
        try:
            head, batches = await subscription.page(PATIENCE_S)
        except (NoAnswer, MalformedFrame) as error:
            self._endpoints.failed(node, monotonic())
            raise ClusterUnreachable(f"{node}: {error}") from error
        except Unavailable:
            self._endpoints.declined(node)
            raise
        self._endpoints.answered(node, head.leader)
        return head, batches

    def leave_node(self) -> None:
        """Ask other nodes than the one that answered last for a while."""
        self._endpoints.leave(monotonic())

    def _next_node(self, call: Call, tried: Mapping[str, str]) -> str:
        candidates = self._endpoints.candidates(
            monotonic(), leader_first=call.writes or call.leader_first
        )
        return next((node for node in candidates if node not in tried), candidates[0])

    async def _attempt(
        self, call: Call, node: str, attempts: Attempts, decode: Callable[[Any], T]
    ) -> _Answered[T] | CuteError:
        """Ask one node. Return its answer or failure; note in `attempts` if it left a doubt."""
        try:
            answer = await self._ask_watched(call, node, attempts)
        except NotSent as error:
            self._endpoints.failed(node, monotonic())
            return ClusterUnreachable(f"{node}: {error}")
        except NoAnswer as error:
            self._endpoints.failed(node, monotonic())
            attempts.unanswered = True
            return OutcomeUnknown(f"{node}: {error}")
        self._endpoints.answered(node, answer.leader, answer.term)
        self._watch.heard(node)
        self._learn_if_due(node)
        failure = answer.failure()
        if failure is None:
            return _decoded(answer, attempts, decode)
        if isinstance(failure, OutcomeUnknown):
            attempts.unanswered = True
        if isinstance(failure, Unavailable | OutcomeUnknown):
            self._endpoints.declined(node)
            if isinstance(failure, NoLeader):
                self._follow(failure)
        return failure

    def _follow(self, failure: NoLeader) -> None:
        """Go where the node says, if it says where the leader is."""
        leader, url = failure.facts.get("leader"), failure.facts.get("leader_http")
        if isinstance(leader, str) and isinstance(url, str):
            self._endpoints.leads(leader, url)

    async def _ask_watched(self, call: Call, node: str, attempts: Attempts) -> Answer | DoorAnswer:
        """Ask, and wait no longer than it makes sense. Raises as `_send`."""
        if not call.repeatable or len(self._endpoints.urls) == 1:
            return await self._ask(call, node, attempts)
        began = monotonic()
        patience = asyncio.Timeout(None)
        with self._watch.over(node, patience, hold_s=call.wait_s, writes=call.writes) as waiting:
            try:
                async with patience:
                    return await self._ask(call, node, attempts)
            except TimeoutError as error:
                self._doors.doubt(node, began)
                raise NoAnswer(waiting.reason) from error

    async def _ask(self, call: Call, node: str, attempts: Attempts) -> Answer | DoorAnswer:
        """Send the call through the node's door if it may, else as HTTP. Raises as `_send`."""
        if call.door is not None and self._endpoints.may_lead(node):
            assert call.body is not None
            timeout_s = self._timeout_s(call, attempts)
            answer = await self._doors.append(
                node, call.door, call.body, timeout_s=timeout_s, timeout_ms=_share_ms(timeout_s)
            )
            if answer is not None and not _knows_no_leader(answer):
                return answer
            # HTTP waits for a leader, and passes on.
        return await self._send(call, node, attempts)

    def _timeout_s(self, call: Call, attempts: Attempts) -> float:
        wanted_s = ATTEMPT_S + call.wait_s + len(call.body or b"") / BODY_BYTES_PER_S
        return max(0.001, min(wanted_s, attempts.remaining_s(monotonic())))

    async def _send(self, call: Call, node: str, attempts: Attempts) -> Answer:
        timeout_s = self._timeout_s(call, attempts)
        query = dict(call.query)
        if call.tells_timeout:
            query["timeout_ms"] = _share_ms(timeout_s)
        headers = {"Accept": wire.MSGPACK, **call.headers}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        return await self._connections.request(
            call.method,
            node,
            call.path + wire.query_of(query),
            headers=headers,
            body=call.body,
            timeout_s=timeout_s,
        )

    def learn(self, cluster: ClusterInfo) -> None:
        """Take over who the members are, so that writes go to the leader directly."""
        members = [(node.id, node.http) for node in cluster.nodes]
        self._endpoints.learn(members, cluster.leader, cluster.term)

    def _learn_if_due(self, node: str) -> None:
        if self._learning is None and self._endpoints.is_learning_due(monotonic()):
            self._learning = asyncio.create_task(self._learn(node))

    async def _learn(self, node: str) -> None:
        """Ask `node` for the cluster's members."""
        try:
            cluster = await self._cluster_at(node, CONNECT_S)
            if cluster is not None:
                self.learn(cluster)
        except ConnectionError as error:
            _log.debug("members not learnt", extra={"node": node, "error": str(error)})
        finally:
            self._learning = None

    async def _cluster_at(self, node: str, timeout_s: float) -> ClusterInfo | None:
        """Return what `node` says about the cluster, None if it says something else.

        Raises ConnectionError if it says nothing in time.
        """
        call = Call("GET", wire.path_of("v1", "cluster"))
        try:
            answer = await self._send(call, node, Attempts(monotonic() + timeout_s))
            if answer.status != 200:
                return None
            return cluster_from(wire.decode_body(answer.content_type, answer.body))
        except wire.MalformedAnswer as error:
            _log.debug("not a cluster", extra={"node": node, "error": str(error)})
            return None
        except (NotSent, NoAnswer) as error:
            raise ConnectionError(str(error)) from error

    async def close(self) -> None:
        await self._watch.close()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        await self._doors.close()
        await self._connections.close()


@dataclass(frozen=True, slots=True)
class _Answered(Generic[T]):
    value: T


def _decoded(
    answer: Answer | DoorAnswer, attempts: Attempts, decode: Callable[[Any], T]
) -> _Answered[T] | CuteError:
    try:
        return _Answered(decode(answer.shape()))
    except wire.MalformedAnswer as error:
        # A 2xx that cannot be read: whatever was asked for has been done.
        attempts.unanswered = True
        return OutcomeUnknown(f"{answer.node}: {error}")


def _share_ms(timeout_s: float) -> int:
    """Return how long the node may take of an attempt's time."""
    return min(60_000, max(1, int(timeout_s * SERVER_SHARE * 1000)))


def _knows_no_leader(answer: DoorAnswer) -> bool:
    failure = answer.failure()
    return isinstance(failure, NoLeader) and failure.facts.get("leader_http") is None


def _final(
    call: Call, failure: CuteError, attempts: Attempts, tried: Mapping[str, str]
) -> CuteError:
    """Return what to raise when the deadline has come."""
    if call.writes and attempts.unanswered:
        return unknown(failure)
    if isinstance(failure, ClusterUnreachable | OutcomeUnknown):
        told = "; ".join(tried.values())
        return ClusterUnreachable(f"no node answered in time: {told}", facts={"tried": [*tried]})
    return failure
