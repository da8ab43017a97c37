"""Connections between simulated nodes, as `peers.Peers` makes them.

Every node dials every other member that it knows and speaks only on the connection it dialled; who
hears a stranger turns it away. A connection delivers in order. It breaks when a process at its end
dies, by a reset, or when a cut lasts longer than TCP waits; what was under way is lost then, or
still arrives until the next connection of that sender is there. A cut in one direction holds that
direction's messages back. Every message is encoded and decoded: nothing is shared by reference.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from random import Random
from typing import Protocol

from ..introductions import why_refused
from ..links import SILENT_LINK_MS, Inbox
from ..members import Members
from ..messages import (
    FRAME_HEAD,
    PROTOCOL,
    AppendEntries,
    Hello,
    Message,
    RepairData,
    decode_message,
    encode_frame,
)
from ..peers import DIAL_TIMEOUT_S, REDIAL_S, REFUSED_REDIAL_S
from .scheduler import Scheduler, Step, Trace

SILENT_LINK_S = SILENT_LINK_MS / 1000
LATE_SHARE = 0.005
"""So many messages take up to `LATE_S` longer."""
LATE_S = 0.2


class Endpoint(Protocol):
    """A node, as the network sees it."""

    id: str
    life: int
    """Counts the processes that ran here."""

    @property
    def inbox(self) -> Inbox | None:
        """None while no process runs."""

    @property
    def members(self) -> Members:
        """Of the process that runs."""

    def enter(self, step: Step) -> None: ...


class Connection:
    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source = source
        self.target = target
        self.source_life = source.life
        self.target_life = target.life
        self.is_open = True
        self.is_refused = False
        self.arrives_at = 0.0
        self.sending = f"{source.id}→{target.id}"
        self.taking = f"{target.id}←{source.id}"
        self.under_way: deque[tuple[bytes, bytes]] = deque()


class Network:
    def __init__(
        self,
        scheduler: Scheduler,
        trace: Trace,
        rng: Random,
        *,
        delay_s: float,
        delay_s_min: float,
    ) -> None:
        self.messages = 0
        self._scheduler = scheduler
        self._trace = trace
        self._rng = rng
        self._delay_s = delay_s
        self._delay_s_min = delay_s_min
        self._nodes: dict[str, Endpoint] = {}
        self._outbound: dict[tuple[str, str], Connection] = {}
        self._inbound: dict[tuple[str, str], Connection] = {}
        self._cut_until: dict[tuple[str, str], float] = {}
        self._guests: set[tuple[str, str]] = set()
        """(host, guest): not a member as the host sees it, and yet to be answered."""

    # ---- what nodes do

    def add(self, node: Endpoint) -> None:
        self._nodes[node.id] = node

    def dial_all(self, source: Endpoint) -> None:
        """A process has started: dial all members."""
        self._guests = {pair for pair in self._guests if pair[0] != source.id}
        for peer in self._wanted(source):
            self._dial_after(source, source.life, peer, 0.0)

    def follow(self, source: Endpoint) -> None:
        """The members have changed: dial those who came, leave those who went."""
        self._guests = {pair for pair in self._guests if pair[0] != source.id}
        wanted = self._wanted(source)
        for peer in self._nodes:
            outbound = self._outbound.get((source.id, peer))
            inbound = self._inbound.get((source.id, peer))
            if peer in wanted and outbound is None:
                self._dial_after(source, source.life, peer, 0.0)
            elif peer not in wanted:
                for connection in (outbound, inbound):
                    if connection is not None:
                        self._scheduler.after(self._delay(), partial(self._break, connection))

    def _wanted(self, source: Endpoint) -> list[str]:
        members = {member.id for member in source.members.newest.members}
        guests = {guest for host, guest in self._guests if host == source.id}
        return sorted((members | guests) - {source.id})

    def emit(self, source: Endpoint, peer: str, message: Message) -> None:
        """Send, or drop if there is no connection."""
        connection = self._outbound.get((source.id, peer))
        if connection is not None and connection.source_life == source.life:
            self._send(connection, message)

    def process_died(self, node: Endpoint, *, silently: bool) -> None:
        """Break the node's connections; if `silently`, the others find out by themselves."""
        for (source, target), connection in list(self._outbound.items()):
            if source == node.id:
                self._close(connection, loses=silently)
            elif target == node.id:
                delay_s = SILENT_LINK_S if silently else self._delay()
                self._scheduler.after(delay_s, partial(self._break, connection))
        for pair in [pair for pair in self._inbound if pair[0] == node.id]:
            del self._inbound[pair]

    # ---- what happens to it

    def cut(self, source: str, target: str, duration_s: float) -> None:
        """Hold back everything on the way from `source` to `target`."""
        until = self._scheduler.now + duration_s
        pair = (source, target)
        self._cut_until[pair] = max(self._cut_until.get(pair, 0.0), until)
        if duration_s > SILENT_LINK_S:
            for between in (pair, (target, source)):
                connection = self._outbound.get(between)
                if connection is not None:
                    self._scheduler.after(SILENT_LINK_S, partial(self._break, connection))

    def reset(self, source: str, target: str) -> None:
        connection = self._outbound.get((source, target))
        if connection is not None:
            self._break(connection)

    def heal(self) -> None:
        self._cut_until.clear()

    # ---- connections

    def _is_cut(self, source: str, target: str) -> bool:
        return self._cut_until.get((source, target), 0.0) > self._scheduler.now

    def _delay(self) -> float:
        random = self._rng.random
        delay_s = self._delay_s_min - math.log(1.0 - random()) * self._delay_s
        if random() < LATE_SHARE:
            delay_s += random() * LATE_S
        return delay_s

    def _dial_after(self, source: Endpoint, life: int, peer: str, delay_s: float) -> None:
        self._scheduler.after(delay_s + 2 * self._delay(), partial(self._dial, source, life, peer))

    def _dial(self, source: Endpoint, life: int, peer: str) -> None:
        if source.life != life or source.inbox is None or (source.id, peer) in self._outbound:
            return
        if peer not in self._wanted(source):
            return
        target = self._nodes[peer]
        is_cut = self._is_cut(source.id, peer) or self._is_cut(peer, source.id)
        if is_cut or target.inbox is None:
            wait_s = self._rng.uniform(*REDIAL_S) + (DIAL_TIMEOUT_S if is_cut else 0.0)
            self._dial_after(source, life, peer, wait_s)
            return
        connection = Connection(source, target)
        self._outbound[source.id, peer] = connection
        self._trace.add(f"{source.id}→{peer} connected")
        members, address = source.members, (source.id, 0)
        identity = (members.incarnation, address, members.index, peer)
        self._send(connection, Hello(PROTOCOL, source.id, None, None, *identity))
        source.enter(partial(source.inbox.connected, peer))

    def _close(self, connection: Connection, *, loses: bool) -> None:
        connection.is_open = False
        if loses:
            connection.under_way.clear()
        self._outbound.pop((connection.source.id, connection.target.id), None)

    def _break(self, connection: Connection) -> None:
        """The dialler finds that its connection is broken, and dials again."""
        source, peer = connection.source, connection.target.id
        if not connection.is_open:
            return
        self._close(connection, loses=self._rng.random() < 0.5)
        self._trace.add(f"{source.id}→{peer} broken")
        if source.inbox is not None and source.life == connection.source_life:
            source.enter(partial(source.inbox.disconnected, peer))
            pause_s = REFUSED_REDIAL_S if connection.is_refused else REDIAL_S
            self._dial_after(source, source.life, peer, self._rng.uniform(*pause_s))

    def _send(self, connection: Connection, message: Message) -> None:
        self.messages += 1
        frame = encode_frame(message)
        connection.under_way.append(frame)
        self._trace.add_digest(connection.sending, frame[0], partial(_brief, message))
        arrives_at = self._scheduler.now + self._delay()
        connection.arrives_at = max(arrives_at, connection.arrives_at + 1e-6)
        self._scheduler.at(connection.arrives_at, partial(self._arrive, connection))

    def _arrive(self, connection: Connection) -> None:
        source, target = connection.source, connection.target
        if not connection.under_way:
            return
        if self._is_cut(source.id, target.id):
            until = self._cut_until[source.id, target.id]
            self._scheduler.at(until + 1e-6, partial(self._arrive, connection))
            return
        head, body = connection.under_way.popleft()
        if target.inbox is None or target.life != connection.target_life:
            if target.inbox is not None:
                self._break(connection)
            return
        target.enter(partial(self._deliver, connection, head, body))

    def _deliver(self, connection: Connection, head: bytes, body: bytes) -> None:
        source, target = connection.source.id, connection.target
        inbox = target.inbox
        assert inbox is not None
        _, digest = FRAME_HEAD.unpack(head)
        message = decode_message(memoryview(body), digest)
        if isinstance(message, Hello):
            if why_refused(message, target.members, None) is not None:
                connection.is_refused = True
                self._scheduler.after(self._delay(), partial(self._break, connection))
                return
            old = self._inbound.get((target.id, source))
            self._inbound[target.id, source] = connection
            if old is not None:
                self._scheduler.after(self._delay(), partial(self._break, old))
            if source not in self._wanted(target):
                self._guests.add((target.id, source))
            if (target.id, source) not in self._outbound:
                self._dial_after(target, target.life, source, 0.0)
            inbox.introduced(source, message.incarnation)
        elif self._inbound.get((target.id, source)) is connection:
            if self._rng.random() < 0.02:
                inbox.still_receiving(source)
            self._trace.add_digest(connection.taking, head, partial(_brief, message))
            inbox.receive(source, message)


def _brief(message: Message) -> str:
    """A message in a few words."""
    if isinstance(message, AppendEntries):
        entries = message.entries
        count = f"{len(entries)} entries" if isinstance(entries, list) else "entries"
        return (
            f"AppendEntries t{message.term} #{message.sequence} c{message.commit_index} "
            f"after {message.prev_index}/{message.prev_term}: {count}"
        )
    if isinstance(message, RepairData) and message.data is not None:
        return f"RepairData #{message.request}: {len(message.data)} bytes"
    return repr(message)
