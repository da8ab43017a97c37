"""Whom a node dials, and who is welcome.

Every node dials every other one and speaks only on the connection it dialled; what it hears comes
on those the others dialled (`links.py`). Of two connections from one node the newest wins, but a
second node under an id that is in use is turned away. Whom a node dials and hears says the log
(`follow`); who is turned away is told why, and tries again more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from typing import Any

from .config import Address
from .introductions import why_refused
from .links import STRANGERS_MAX, Inbound, Inbox, Outbound, Refused
from .members import Members
from .messages import PROTOCOL, Hello, Message, Refusal

logger = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 1.0
REDIAL_S = (0.05, 0.25)
REFUSED_REDIAL_S = (0.4, 0.8)
STRANGER_S = 3.0
"""A refusal is news for so long."""
GUESTS_MAX = 16


class Peers:
    """This node's links to all others."""

    def __init__(
        self,
        node_id: str,
        listen: Address,
        advertise: Address,
        http_url: str | None,
    ) -> None:
        self.node_id = node_id
        self.addresses: dict[str, Address] = {}
        """Of all members but this node, and of guests."""
        self.http_urls: dict[str, str | None] = {}
        """What the other nodes said of their HTTP servers."""
        self.cluster_id: str | None = None
        self.strangers: set[Inbound] = set()
        self.inbound: dict[str, Inbound] = {}
        self.outbound: dict[str, Outbound] = {}
        self._listen = listen
        self._advertise = advertise
        self._members: Members | None = None
        self._turned_away: dict[str, str] = {}
        """What was logged last of a node that was refused."""
        self._refused_by: dict[str, str] = {}
        self._told: dict[str, Address] = {}
        """Where the others said they are."""
        self._refusals: Counter[str] = Counter()
        self._is_stranger_until = 0.0
        self._http_url = http_url
        self._inbox: Inbox | None = None
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def inbox(self) -> Inbox:
        assert self._inbox is not None
        return self._inbox

    @property
    def members(self) -> Members:
        assert self._members is not None
        return self._members

    async def start(self, inbox: Inbox) -> None:
        """Listen and dial. Raises OSError if the address cannot be bound."""
        self._inbox = inbox
        loop = asyncio.get_running_loop()
        host, port = self._listen
        self._server = await loop.create_server(lambda: Inbound(self), host, port)
        for peer in self.addresses:
            self._dial_soon(peer, 0.0)

    def follow(self, members: Members) -> None:
        """Speak with these from now on, and with nobody else. First called before `start`."""
        if self._members is not None and self._members.incarnation != members.incarnation:
            # They have to hear who this node is now before they hear anything else of it.
            for link in self.outbound.values():
                link.transport.abort()
        self._members = members
        newest = members.newest.members
        before = self.addresses
        self.addresses = {each.id: each.address for each in newest if each.id != self.node_id}
        for peer in before:
            if self.addresses.get(peer) != before[peer]:
                self._leave(peer)
        for peer in self.addresses.keys() - before.keys() if self._inbox is not None else ():
            self._dial_soon(peer, 0.0)

    def _leave(self, peer: str) -> None:
        """It is no member any more, or is somewhere else."""
        links = [self.outbound.get(peer), self.inbound.get(peer)]
        for link in links:
            if link is not None:
                link.transport.abort()

    def listen_for(self, inbox: Inbox) -> None:
        """Tell `inbox` instead from now on, beginning with the connections there are."""
        self._inbox = inbox
        for peer, link in self.inbound.items():
            inbox.introduced(peer, link.incarnation)
        for peer in self.outbound:
            inbox.connected(peer)

    async def close(self) -> None:
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        links: list[Inbound | Outbound] = [*self.outbound.values(), *self.inbound.values()]
        for link in [*links, *self.strangers]:
            link.transport.abort()

    def hello(self, peer: str) -> Hello:
        return Hello(
            PROTOCOL,
            self.node_id,
            self.cluster_id,
            self._http_url,
            self.members.incarnation,
            self._advertise,
            self.members.index,
            peer,
        )

    def emit(self, peer: str, message: Message) -> None:
        """Send, or drop if there is no connection: Raft sends again."""
        link = self.outbound.get(peer)
        if link is not None:
            link.send(message)

    def lost(self, link: Outbound) -> None:
        """`link` broke: tell Raft, and dial again."""
        if self.outbound.get(link.peer) is link:
            del self.outbound[link.peer]
            self.inbox.disconnected(link.peer)
        if not self._closed and link.peer in self.addresses:
            pause_s = REFUSED_REDIAL_S if link.was_refused else REDIAL_S
            self._dial_soon(link.peer, random.uniform(*pause_s))

    def _dial_soon(self, peer: str, delay_s: float) -> None:
        self._start(self._dial(peer, delay_s))

    def _start(self, dial: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(dial)
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, peer: str, delay_s: float) -> None:
        for attempt in count():
            await asyncio.sleep(delay_s)
            if peer not in self.addresses or peer in self.outbound:
                return
            with contextlib.suppress(OSError):
                await self._connect(peer, self._place(peer, attempt))
                return
            delay_s = random.uniform(*REDIAL_S)

    async def _dial_once(self, peer: str, place: Address) -> None:
        """`peer` has dialled this node, so it is up: `_dial`, which goes on, would find that out by
        chance, or when its dial of a machine that was off runs out.
        """
        with contextlib.suppress(OSError):
            await self._connect(peer, place)

    async def _connect(self, peer: str, place: Address) -> None:
        """Raises OSError. Of two connections to `peer` the second one ends itself."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await loop.create_connection(lambda: Outbound(self, peer), *place)
        except ValueError as error:
            # It cannot be an address, but the next one the peer is said to have may.
            raise OSError(f"{place} is no address") from error

    def _place(self, peer: str, attempt: int) -> Address:
        """Where to dial: as the log says, and in turn where the settings say and it said itself;
        all of a cluster may have moved at once.
        """
        places = [self.addresses[peer], self.members.founder_address(peer), self._told.get(peer)]
        known = list(dict.fromkeys(place for place in places if place is not None))
        return known[(self._refusals[peer] + attempt) % len(known)]

    def introduced(self, link: Inbound, hello: Hello) -> None:
        """A stranger said who it is; Refused if it has no business here."""
        refusal = why_refused(hello, self.members, self.cluster_id)
        old = self.inbound.get(hello.node)
        if refusal is None and self._is_taken(hello, old):
            refusal = Refusal(f"another node {hello.node} is alive", is_stranger=False)
        if refusal is None and hello.node not in self.addresses:
            refusal = self._receive_guest(hello)
        if refusal is not None:
            self._note(hello.node, refusal.reason)
            raise Refused(refusal)
        self._turned_away.pop(hello.node, None)
        self.strangers.discard(link)
        self.inbound[hello.node] = link
        self.http_urls[hello.node] = hello.http_url
        self._told[hello.node] = hello.raft
        if old is not None:
            old.transport.abort()
        if hello.node not in self.outbound and not self._closed:
            self._start(self._dial_once(hello.node, self._place(hello.node, 0)))
        self.inbox.introduced(hello.node, hello.incarnation)

    def _is_taken(self, hello: Hello, old: Inbound | None) -> bool:
        """Does somebody else have this id, somebody who is there?"""
        if hello.node == self.node_id:
            return True
        return old is not None and old.incarnation != hello.incarnation

    def _receive_guest(self, hello: Hello) -> Refusal | None:
        """It knows the members better than this node does: answer it, until this one knows too."""
        if len(self.addresses) - len(self.members.newest.members) >= GUESTS_MAX:
            return Refusal("too many guests", is_stranger=False)
        self.addresses[hello.node] = hello.raft
        self._dial_soon(hello.node, 0.0)
        return None

    def _note(self, node: str, reason: str) -> None:
        """Log a refusal once, however often it is repeated."""
        if self._turned_away.get(node) == reason:
            return
        if len(self._turned_away) >= STRANGERS_MAX:
            self._turned_away.clear()
        self._turned_away[node] = reason
        logger.warning("refused a node", extra={"peer": node, "reason": reason})

    def was_refused(self, peer: str, refusal: Refusal) -> None:
        """`peer` does not want to hear this node."""
        self._refusals[peer] += 1
        if refusal.is_stranger:
            now = asyncio.get_running_loop().time()
            self._is_stranger_until = now + STRANGER_S
        if self._refused_by.get(peer) != refusal.reason:
            self._refused_by[peer] = refusal.reason
            reason = {"peer": peer, "reason": refusal.reason}
            logger.warning("another node refuses this one", extra=reason)

    @property
    def is_stranger(self) -> bool:
        """Has a member said lately that this node is none?"""
        return asyncio.get_running_loop().time() < self._is_stranger_until
