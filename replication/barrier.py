"""Linearizable reads on any node: ask whoever leads for an index, then read here once that is
applied.

Callers that come while a question is under way share the next one.
"""

from __future__ import annotations

from collections.abc import Callable

from . import upstream
from .gate import Gate
from .messages import ReadIndexReply, ReadIndexRequest
from .raft import RaftCore

Answer = Callable[["int | None"], None]

ASK_AGAIN_S = 0.25
"""A question or its answer may be lost with a connection or a leader."""


class ReadBarrier:
    def __init__(self, core: RaftCore, gate: Gate, token: str) -> None:
        """`token` is this process's own hexadecimal number: an answer to a question of the process
        before it, which comes late, must not be taken for one of now.
        """
        self._core = core
        self._gate = gate
        self._request = int(token[:12], 16)
        self._asked_at = 0.0
        self._asking: list[Answer] = []
        self._next: list[Answer] = []

    def ask(self, answer: Answer) -> None:
        """Answer with an index that covers all that was acknowledged before now; None: nobody
        leads.
        """
        self._next.append(answer)
        self.poll()

    def poll(self) -> None:
        """Called every turn: ask for those who wait, or once more if no answer came."""
        if self._asking and upstream.now() - self._asked_at > ASK_AGAIN_S:
            self._send()
        elif not self._asking and self._next:
            self._asking, self._next = self._next, []
            self._send()

    def _send(self) -> None:
        self._request += 1
        self._asked_at = upstream.now()
        request = self._request
        leader = self._core.leader_id()
        if self._core.is_leader():
            self._core.read_index(lambda index: self.on_reply(ReadIndexReply(request, index)))
        elif leader is not None:
            self._gate.post(leader, ReadIndexRequest(request))
        else:
            self.on_reply(ReadIndexReply(request, None))

    def on_request(self, peer: str, message: ReadIndexRequest) -> None:
        """Another node asks this one."""

        def answer(index: int | None) -> None:
            self._gate.post(peer, ReadIndexReply(message.request, index))

        self._core.read_index(answer)

    def on_reply(self, reply: ReadIndexReply) -> None:
        if reply.request != self._request:
            return
        answered, self._asking = self._asking, []
        for answer in answered:
            answer(reply.index)
