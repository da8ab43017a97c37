"""Holds promises back until they are on disk.

An acknowledgement, a vote and a request for votes all state something about this node's durable
log. They leave, in order for each peer, once everything written before them has been fsynced.
AppendEntries and the questions that promise nothing pass at once: a leader may replicate beside its
own fsync (Ongaro's thesis, section 10.2.1).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from .messages import AppendReply, Message, TimeoutNow, Vote, VoteRequest

PROMISES = (AppendReply, Vote, VoteRequest)


class Durability(Protocol):
    """How far the log is written, and how far of that it is durable."""

    @property
    def position(self) -> int: ...
    @property
    def durable_position(self) -> int: ...


class Gate(Transport):  # type: ignore[misc]
    """pysyncobj's way out. `emit(peer, message)` puts a message on the wire, or drops it."""

    def __init__(self, log: Durability, emit: Callable[[str, Message], None]) -> None:
        super().__init__(None, None, None)
        self._log = log
        self._emit = emit
        self._held: defaultdict[str, deque[tuple[int, Message]]] = defaultdict(deque)
        self.voter_of: Callable[[str], str | None] = lambda peer: None
        """The incarnation whose vote a candidate asks for."""
        self.transfer_term: int | None = None
        """The term of an election the leader asked for; its vote requests say so."""

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Called by stock code only; its three kinds of messages become ours."""
        kind, term = message["type"], message["term"]
        if kind == "request_vote":
            transfer = term == self.transfer_term
            request = VoteRequest(
                term,
                message["last_log_index"],
                message["last_log_term"],
                transfer,
                self.voter_of(node.id),
            )
            self.post(node.id, request)
        elif kind == "response_vote":
            self.post(node.id, Vote(term))
        elif kind == "timeout_now":
            self.post(node.id, TimeoutNow(term))
        else:
            raise AssertionError(f"stock code that sends {kind} must not run")
        return True

    def post(self, peer: str, message: Message) -> bool:
        """Send `message` as soon as what it promises is durable; False if that is not now."""
        if isinstance(message, PROMISES):
            position, held = self._log.position, self._held[peer]
            if held or position > self._log.durable_position:
                held.append((position, message))
                return False
        self._emit(peer, message)
        return True

    def release(self) -> None:
        """After an fsync: send what waited for it."""
        durable = self._log.durable_position
        for peer, held in self._held.items():
            while held and held[0][0] <= durable:
                self._emit(peer, held.popleft()[1])

    def forget(self, peer: str) -> None:
        """The connection broke: what waits for it is worthless."""
        self._held[peer].clear()
