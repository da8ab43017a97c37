"""What needs the leader goes there: handled here if this node leads, else passed on or redirected.

The bytes of the body are passed on as they came. A request is passed on once: `Cute-Forwarded` says
so, and a node that does not lead refuses such a request. What fails before the leader was connected
is refused and tried once more; what fails later may have been written. Nobody waits for a leader
that leads no more: it may be frozen, and whoever asked can repeat at the new one what may be
repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Final, TypeAlias

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from ...replication.errors import NoLeader, NotCaughtUp, NotLeader
from ...replication.replica import Replica
from ..units import KiB
from .bodies import read_body
from .context import REQUEST_ID, Context, context_of
from .problems import Problem
from .queries import WriteQuery, read_query
from .streams import checked_name

LeaderHandler: TypeAlias = Callable[[web.Request, WriteQuery], Awaitable[web.Response]]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORWARDED: Final = "Cute-Forwarded"
LEADER_WAIT_S: Final = 1.0
"""Longest wait for a leader; an election takes about as long."""
DEPOSED_S: Final = 0.2
"""What a leader gets to answer in once another one leads: one that hands over answers well."""
_POLL_S: Final = 0.02
_LOOK_S: Final = 0.1
"""So often it is looked who leads, while requests wait for a leader's answer."""
_SHOW_HERE_S: Final = 0.2
_CONNECT_TIMEOUT_S: Final = 1.0
_MARGIN_S: Final = 1.0
"""The leader gets its own timeout, and this for the way."""
_CONNECTIONS_MAX: Final = 1024
_PIECE_BYTES: Final = 64 * KiB
_PASSED_ON: Final = ("Content-Type", "Accept", "Idempotency-Key", "Content-Encoding")
_PASSED_BACK: Final = (
    "Content-Type",
    "Retry-After",
    "Cute-Node",
    "Cute-Leader",
    "Cute-Term",
    "Cute-Index",
)


class NotConnected(Exception):
    """The leader was not reached: nothing was sent."""


class NotTaken(Exception):
    """The node asked does not lead any more, and did nothing."""

    def __init__(self, asked: str | None) -> None:
        super().__init__(f"{asked} does not lead")
        self.asked = asked


class AnswerLost(Exception):
    """The request was sent, at least in part, and no whole answer came back."""


async def _one_attempt(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Tell what was sent from what was not, and keep aiohttp from sending a PUT or DELETE twice."""
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotConnected(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise AnswerLost(str(error)) from error


class Forwarder:
    """Connections to the other nodes, kept open between requests."""

    def __init__(self) -> None:
        self._patience = _Patience()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
            middlewares=(_one_attempt,),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        self._patience.close()
        await self._session.close()

    async def send(
        self, request: web.Request, base_url: str, term: int, timeout_s: float
    ) -> web.Response:
        """Pass the request on to the node at `base_url`, which led in `term`; return its answer.

        Raises NotConnected; AnswerLost, also when that node leads no more.
        """
        body = await read_body(request)
        replica = context_of(request).live_replica()
        try:
            async with self._patience.until_deposed(replica, term):
                return await self._send(request, body, base_url, timeout_s)
        except TimeoutError as error:
            raise AnswerLost("another node leads now") from error

    async def _send(
        self, request: web.Request, body: bytes, base_url: str, timeout_s: float
    ) -> web.Response:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers[FORWARDED] = context_of(request).config.id
        headers["Cute-Request-Id"] = request[REQUEST_ID]
        try:
            async with self._session.request(
                request.method,
                URL(base_url + request.raw_path, encoded=True),
                data=_payload(body),
                headers=headers,
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
                ssl=_certified() if base_url.startswith("https:") else True,
                timeout=aiohttp.ClientTimeout(
                    total=timeout_s + _MARGIN_S, connect=_CONNECT_TIMEOUT_S
                ),
            ) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, OSError) as error:
            raise AnswerLost(str(error)) from error
        back = {name: reply.headers[name] for name in _PASSED_BACK if name in reply.headers}
        return web.Response(status=reply.status, body=content or None, headers=back)


class _Patience:
    """Ends the wait for a leader's answer, by TimeoutError, when there is one of a newer term."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Timeout, tuple[Replica, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def until_deposed(self, replica: Replica, term: int) -> AsyncIterator[None]:
        async with asyncio.Timeout(None) as timeout:
            self._waiting[timeout] = (replica, term)
            if self._timer is None:
                self._look_later()
            try:
                yield
            finally:
                self._waiting.pop(timeout, None)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        for timeout, (replica, term) in list(self._waiting.items()):
            if replica.leader_id is not None and replica.term > term:
                del self._waiting[timeout]
                timeout.reschedule(_now() + DEPOSED_S)
        if self._waiting:
            self._look_later()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


@cache
def _certified() -> ssl.SSLContext:
    """The system's certificates, for nodes behind a TLS proxy; aiohttp's own context has none in a
    process started by `cute node`.
    """
    return ssl.create_default_context()


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """Return what aiohttp sends in one go if it is small, and piece by piece if it is large."""
    if not body:
        return None
    return body if len(body) <= _PIECE_BYTES else io.BytesIO(body)


def on_leader(handler: LeaderHandler, query_type: type[WriteQuery] = WriteQuery) -> Handler:
    """Wrap a handler that only the leader can run, so that every node answers.

    It is called with a `query_type`.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        for kind in ("group", "stream"):
            if kind in request.match_info:
                checked_name(kind, request.match_info[kind], writes=True)
        query = read_query(request, query_type)
        return await _Attempt(request, query, handler).run()

    return handle


class _Attempt:
    """One request's search for the leader, bounded by a deadline and by two tries."""

    def __init__(self, request: web.Request, query: WriteQuery, handler: LeaderHandler) -> None:
        self._request = request
        self._query = query
        self._handler = handler
        self._context: Context = context_of(request)
        self._replica: Replica = self._context.live_replica()
        self._deadline = _now() + min(query.timeout_ms / 1000, LEADER_WAIT_S)

    async def run(self) -> web.StreamResponse:
        failed: str | None = None
        for _ in range(2):
            await self._find_leader(failed)
            try:
                return await self._once()
            except NotConnected:
                failed = self._replica.leader_id
            except NotTaken as error:
                failed = error.asked
            except (NotLeader, NoLeader):
                failed = None
        raise self._refusal()

    async def _once(self) -> web.StreamResponse:
        replica, request = self._replica, self._request
        if replica.is_leader:
            return await self._handler(request, self._query)
        if FORWARDED in request.headers or replica.leader_http is None:
            raise self._refusal()
        if self._query.redirect:
            path = request.rel_url.without_query_params("redirect")
            return web.Response(status=307, headers={"Location": f"{replica.leader_http}{path}"})
        asked = replica.leader_id
        try:
            answer = await self._context.forwarder.send(
                request, replica.leader_http, replica.term, self._query.timeout_ms / 1000
            )
        except AnswerLost as error:
            raise Problem(
                "outcome_unknown", "the leader was asked and no answer came back"
            ) from error
        if _is_not_taken(answer):
            raise NotTaken(asked)
        await self._show_here(answer)
        return answer

    async def _show_here(self, answer: web.Response) -> None:
        """Wait a moment until this node shows the write: who wrote here will read here."""
        if answer.status < 300 and "Cute-Index" in answer.headers:
            with contextlib.suppress(NotCaughtUp):
                index = int(answer.headers["Cute-Index"])
                await self._replica.wait_applied(index, timeout_s=_SHOW_HERE_S)

    async def _find_leader(self, failed: str | None) -> None:
        """Return once somebody other than `failed` leads; at the deadline raise `no_leader`."""
        replica = self._replica
        while not replica.is_leader:
            if replica.leader_id not in (None, failed) and replica.leader_http is not None:
                return
            left_s = self._deadline - _now()
            if left_s <= 0 or FORWARDED in self._request.headers:
                raise self._refusal()
            if replica.leader_id is None:
                await replica.wait_leader(left_s)
            else:
                await asyncio.sleep(min(_POLL_S, left_s))

    def _refusal(self) -> Problem:
        leader = self._replica.leader_id
        if leader is None:
            return Problem("no_leader", "nobody leads at the moment", leader=None)
        return Problem("no_leader", f"the leader, {leader}, cannot be reached", leader=leader)


def _is_not_taken(answer: web.Response) -> bool:
    """Did the node refuse because it does not lead? Leadership moved meanwhile."""
    if answer.status != 503 or not isinstance(answer.body, bytes):
        return False
    try:
        problem = msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        return False
    return isinstance(problem, dict) and problem.get("code") == "no_leader"


def _now() -> float:
    return asyncio.get_running_loop().time()
