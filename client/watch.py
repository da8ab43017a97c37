"""Attempts that wait, and whether to wait on: the other nodes are asked who leads.

A node that hangs says nothing, and neither does one that has much to do. To tell them apart, all
nodes are asked about the cluster while an attempt waits for long: one question a node at a time,
however many attempts wait. An attempt is given up, to be repeated elsewhere, when

- another node names another leader, of a newer term than was known when the attempt was sent: the
  node asked leads no more, or passed the attempt on to one that does not;
- the node asked says nothing at all for a while, and another node does. A write waits longer for
  the one that still leads: whoever else is asked passes it on to the same node.

A node that leads, and answers whatever else, is waited for: to repeat what it is working on makes
more work for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from .answers import ClusterInfo
from .endpoints import Endpoints, base_url

WAITED_S = 0.25
"""An attempt that waits for longer is a reason to ask."""
PERIOD_S = 0.1
"""So often a node is asked, at most."""
SILENT_S = 1.0
"""A node that says nothing for so long is left for another one."""
LEADER_SILENT_S = 2.0
"""As much for a write, as long as nobody else leads."""
ASKED_MAX = 8
"""Nodes asked at the same time."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One attempt."""

    node: str
    since: float
    """When it was sent, and how long the node may hold it back beyond that."""
    term: int
    """The newest of which a leader was known when it was sent."""
    writes: bool
    patience: asyncio.Timeout
    reason: str = ""
    """Why it was given up."""


@dataclass(frozen=True, slots=True)
class View:
    """What a node says about the cluster."""

    node: str
    term: int
    leader: str | None
    """Base URL of the node that leads, as far as that one knows."""


def reason_to_leave(waiting: Waiting, view: View, heard_at: float, now: float) -> str | None:
    """Return why to give up the attempt after `view`; the node asked was heard at `heard_at`."""
    if view.node == waiting.node or now < waiting.since:
        return None
    other_leads = view.leader is not None and view.leader != waiting.node
    if other_leads and view.term > waiting.term > 0:
        return f"{view.leader} leads now"
    silent_s = now - max(waiting.since, heard_at)
    patience_s = SILENT_S if other_leads or not waiting.writes else LEADER_SILENT_S
    return f"not a word within {silent_s:.1f} s" if silent_s >= patience_s else None


class LeaderWatch:
    """Used on one event loop. `ask(node, timeout_s)` returns what the node says about the cluster,
    None if it says something else; it raises ConnectionError if the node says nothing. `learn` is
    told what a node says whose leader may be followed.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        ask: Callable[[str, float], Awaitable[ClusterInfo | None]],
        learn: Callable[[ClusterInfo], None],
    ) -> None:
        self._endpoints = endpoints
        self._ask = ask
        self._learn = learn
        self._waiting: dict[Waiting, None] = {}
        self._heard_at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: dict[str, asyncio.Task[None]] = {}

    @contextmanager
    def over(
        self, node: str, patience: asyncio.Timeout, *, hold_s: float, writes: bool
    ) -> Iterator[Waiting]:
        """Watch over an attempt at `node`, which may hold it back for `hold_s`: if it is given up,
        `patience` expires.
        """
        since = monotonic() + hold_s
        waiting = Waiting(node, since, self._endpoints.term, writes, patience)
        self._waiting[waiting] = None
        if self._timer is None:
            self._look_later()
        try:
            yield waiting
        finally:
            self._waiting.pop(waiting, None)

    def heard(self, node: str) -> None:
        """The node said something."""
        self._heard_at[node] = monotonic()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._look)

    def _look(self) -> None:
        """Ask who is not being asked, if an attempt waits for long."""
        self._timer = None
        if not self._waiting:
            return
        now = monotonic()
        if any(now - waiting.since >= WAITED_S for waiting in self._waiting):
            for node in self._endpoints.candidates(now, leader_first=True)[:ASKED_MAX]:
                if node not in self._asking:
                    self._asking[node] = asyncio.create_task(self._ask_one(node))
        self._look_later()

    async def _ask_one(self, node: str) -> None:
        try:
            info = await self._ask(node, SILENT_S)
            self.heard(node)
            if info is not None:
                self._judge(node, info)
        except ConnectionError:
            pass
        finally:
            del self._asking[node]

    def _judge(self, node: str, info: ClusterInfo) -> None:
        view = View(node, info.term, _leader_in(info))
        if view.leader is not None and view.term >= self._endpoints.term:
            self._learn(info)
        now = monotonic()
        for waiting in list(self._waiting):
            heard_at = self._heard_at.get(waiting.node, 0.0)
            reason = reason_to_leave(waiting, view, heard_at, now)
            if reason is not None:
                del self._waiting[waiting]
                waiting.reason = reason
                waiting.patience.reschedule(now)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def _leader_in(info: ClusterInfo) -> str | None:
    url = next((node.http for node in info.nodes if node.id == info.leader), None)
    try:
        return base_url(url or "")
    except ValueError:
        return None
