"""What the handlers of one node share: its replica, its limits, and whether it is stopping."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from ...replication.replica import Replica
from ..config import NodeConfig
from .problems import Problem
from .traffic import WAITED, Traffic

if TYPE_CHECKING:
    from ..door.feeds import Feeds
    from .connection import Connection
    from .forward import Forwarder

REQUEST_ID: Final = web.RequestKey("request_id", str)
TAKEN: Final = web.RequestKey("body_bytes_taken", int)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Budget:
    """Bytes that may be held at a time for one purpose; more is refused, never queued."""

    def __init__(self, what: str, bytes_max: int) -> None:
        self._what = what
        self._bytes_max = bytes_max
        self.taken = 0

    def take(self, count: int) -> None:
        """Count `count` bytes; raises Problem `throttled`, counting nothing, if it is too much."""
        if self.taken + count > self._bytes_max:
            raise Problem(
                "throttled",
                f"{self._what} under way already hold {self.taken} bytes",
                limit_bytes=self._bytes_max,
            )
        self.taken += count

    def give_back(self, count: int) -> None:
        self.taken -= count
        assert self.taken >= 0


class Context:
    """Lives as long as the HTTP server; `replica` is None until recovery is over."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.replica: Replica | None = None
        self.forwarder: Forwarder
        """Set when the application starts, on its loop."""
        self.stopping = False
        self.connections = 0
        self.strangers: set[asyncio.Transport] = set()
        """Open connections that do not speak HTTP, or have not spoken yet."""
        self.bodies = Budget("request bodies", config.bodies_bytes_max)
        self.answers = Budget("answers", config.answers_bytes_max)
        self.under_way = 0
        """Requests that are being answered, waiting reads included."""
        self.idle = asyncio.Event()
        """Set whenever no request is under way."""
        self.idle.set()
        self.unpacking = asyncio.Semaphore(1)
        """Held while a large batch is looked into: its records may take fifty times its bytes."""
        self.polls: set[asyncio.Task[object]] = set()
        """Tasks of the reads that wait."""
        self.feeds: Feeds
        """Set when the server starts."""
        self.traffic = Traffic()
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def live_replica(self) -> Replica:
        """Return the replica, or raise Problem `not_ready` while it recovers."""
        if self.replica is None:
            raise Problem("not_ready", "this node is reading its log", reason="recovering")
        return self.replica

    def request_id(self, given: str | None) -> str:
        """Return the id the client gave if it is a decent one, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return f"{self._prefix}-{next(self._numbers):x}"

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one request as under way."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Count one request as under way, until `end`."""
        self.under_way += 1
        self.idle.clear()

    def end(self) -> None:
        self.under_way -= 1
        if not self.under_way:
            self.idle.set()

    @contextmanager
    def waiting(self, request: web.Request) -> Iterator[None]:
        """Make room for one read that waits.

        It ends with the client's connection, and with `shutting_down` when the node stops. Raises
        Problem `throttled` when too many wait.
        """
        task = asyncio.current_task()
        assert task is not None
        if len(self.polls) >= self.config.polls_max:
            raise Problem("throttled", f"{len(self.polls)} reads are waiting already")
        self.check_stopping()
        self.polls.add(task)
        request[WAITED] = True
        connection = cast("Connection", request.protocol)
        connection.poll = task
        try:
            yield
        except asyncio.CancelledError:
            if self.stopping and task in self.polls and task.cancelling() == 1:
                task.uncancel()
                self.check_stopping()
            raise
        finally:
            self.polls.discard(task)
            connection.poll = None

    def stop_intake(self) -> None:
        """From now on refuse what comes, and end the reads that wait."""
        self.stopping = True
        for task in self.polls:
            task.cancel()
        self.feeds.stop()

    def check_stopping(self) -> None:
        """Raises Problem `shutting_down`."""
        if self.stopping:
            raise Problem("shutting_down", "this node is stopping; ask another one")


CONTEXT: Final = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]
