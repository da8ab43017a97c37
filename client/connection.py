"""One request to one node, over kept-alive connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from . import wire
from .answers import StoredBatches
from .errors import CuteError

CONNECT_TIMEOUT_S = 2.0


class NotSent(Exception):
    """No connection: the request certainly never reached the node."""


class NoAnswer(Exception):
    """The request may have been carried out, but its answer did not arrive."""


async def _one_attempt(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a PUT or DELETE once more by itself when its connection is lost:
    whoever called has to know that an attempt was left without an answer.
    """
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET" or isinstance(error, aiohttp.ClientConnectorError):
            raise
        raise NoAnswer(str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    node: str
    """Base URL of the node that was asked."""

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def leader(self) -> str | None:
        """Id of the node that leads, as far as this one knows."""
        return self.headers.get(wire.LEADER_HEADER)

    @property
    def term(self) -> int:
        """The Raft term this node is in; 0 if it does not tell."""
        told = self.headers.get(wire.TERM_HEADER, "")
        return int(told) if told.isdecimal() else 0

    def failure(self) -> CuteError | None:
        """Return the failure that it tells, None for a 2xx."""
        return wire.error_from(self.status, self.headers, self.body)

    def shape(self) -> Any:
        """Return what is in its body. Raises MalformedAnswer."""
        if self.content_type.partition(";")[0].strip().lower() == wire.BATCHES:
            return StoredBatches(self.headers, self.body)
        return wire.decode_body(self.content_type, self.body)


@dataclass(slots=True)
class SessionToken:
    """The largest Raft index this session has seen; reads wait until a node has applied it."""

    index: int = 0

    def see(self, index: int) -> None:
        self.index = max(self.index, index)


@dataclass(slots=True)
class Connections:
    """The open connections to all nodes; used on one event loop."""

    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)

    async def request(
        self,
        method: str,
        node: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> Answer:
        """Send one request and read its whole answer within `timeout_s`.

        Redirects are not followed. Raises NotSent or NoAnswer, RuntimeError after `close`.
        """
        timeout = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s)
        )
        try:
            async with self._opened().request(
                method,
                URL(node + target, encoded=True),
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                content = await response.read()
                return Answer(response.status, response.headers, content, node)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(str(error) or "no connection in time") from error
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {timeout_s:.1f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(str(error) or type(error).__name__) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Callers bound what is under way; a limit here would spend their deadlines waiting.
                connector=aiohttp.TCPConnector(limit=0),
                middlewares=(_one_attempt,),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None
