"""Commands that wait to become Raft entries, many to an entry.

While an fsync runs, commands gather; when it ends, or enough have gathered, they go into the log
together. That is the group commit: the busier the node, the larger its entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .commands import Command, encode_commands
from .errors import NoLeader, OutcomeUnknown, Refused, ReplicationError
from .guards import Guard, Verdict

COMMAND_OVERHEAD_BYTES = 128
"""Counted per command beside its body, so that many small ones are bounded too."""
COMMANDS_PER_ENTRY_MAX = 10_000

Settle = Callable[[Any], None]


class Pending:
    """One command and who waits for its result (or for a ReplicationError). Settles once."""

    __slots__ = ("_settle", "command", "guard", "proposed", "size")

    def __init__(
        self, command: Command, body_bytes: int, settle: Settle, guard: Guard | None = None
    ) -> None:
        self.command = command
        self.guard = guard
        """Says whether it may be proposed; `Verdict.LOOK_AGAIN` may be its outcome then."""
        self.size = body_bytes + COMMAND_OVERHEAD_BYTES
        self.proposed = False
        """Part of an entry: from here on only the log knows its fate."""
        self._settle: Settle | None = settle

    def settle(self, outcome: Any) -> None:
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(outcome)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._settle = None

    @property
    def abandoned(self) -> bool:
        return self._settle is None


class Entry:
    """The commands of one proposed entry (a `raft.Proposal`)."""

    def __init__(self, parts: list[Pending], number: int, on_end: Callable[[Entry], None]) -> None:
        self.number = number
        """Of its first command: counts all that this node proposed."""
        self._parts = parts
        self._on_end = on_end

    def commands(self) -> Iterator[tuple[int, Command]]:
        """With their numbers."""
        for number, part in enumerate(self._parts, self.number):
            yield number, part.command

    def applied(self, result: list[Any]) -> None:
        self._on_end(self)
        for part, outcome in zip(self._parts, result, strict=True):
            part.settle(outcome)

    def unknown(self) -> None:
        self._fail(OutcomeUnknown("leadership was lost while the append was under way"))

    def refused(self, error: Refused) -> None:
        """The core did not take the entry."""
        self._fail(error)

    def _fail(self, error: ReplicationError) -> None:
        self._on_end(self)
        for part in self._parts:
            part.settle(error)


class Coalescer:
    def __init__(self, entry_bytes_max: int) -> None:
        self.bytes = 0
        self._entry_bytes_max = entry_bytes_max
        self._waiting: deque[Pending] = deque()
        self._count = 0
        """Commands proposed so far."""
        self._under_way: dict[Entry, None] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Enough waits for an entry of its own."""
        return self.bytes >= self._entry_bytes_max

    def add(self, pending: Pending) -> None:
        self._waiting.append(pending)
        self.bytes += pending.size

    def take(self) -> tuple[bytes, Entry] | None:
        """The next entry's payload and its waiters; None if nobody waits, or only for others."""
        parts: list[Pending] = []
        held: list[Pending] = []
        size = 0
        while self._waiting and len(parts) < COMMANDS_PER_ENTRY_MAX:
            pending = self._waiting[0]
            if parts and size + pending.size > self._entry_bytes_max:
                break
            self._waiting.popleft()
            if not self._may_go(pending, parts) and not pending.abandoned:
                held.append(pending)
                continue
            self.bytes -= pending.size
            if not pending.abandoned:
                pending.proposed = True
                size += pending.size
                parts.append(pending)
        self._waiting.extendleft(reversed(held))
        if not parts:
            return None
        entry = Entry(parts, self._count + 1, self._ended)
        self._count += len(parts)
        self._under_way[entry] = None
        return encode_commands([part.command for part in parts]), entry

    def _may_go(self, pending: Pending, parts: list[Pending]) -> bool:
        """Judge a guarded command behind `parts`; if it never may go, it is settled."""
        guard = pending.guard
        if guard is None or pending.abandoned:
            return True
        verdict = guard.judge(self._ahead(guard.cleared, parts))
        if verdict is Verdict.HOLDS:
            return True
        if verdict is not Verdict.WAIT:
            pending.settle(verdict)
        return False

    def _ahead(self, cleared: int, parts: list[Pending]) -> Iterator[tuple[int, Command]]:
        """The commands under way, and those of the entry being made, behind number `cleared`."""
        for entry in self._under_way:
            for number, command in entry.commands():
                if number > cleared:
                    yield number, command
        for number, part in enumerate(parts, self._count + 1):
            if number > cleared:
                yield number, part.command

    def _ended(self, entry: Entry) -> None:
        self._under_way.pop(entry, None)

    def refuse_all(self, error: Refused | None = None) -> None:
        """Not the leader (any more): none of these ever reached the log."""
        waiting, self._waiting, self.bytes = self._waiting, deque(), 0
        for pending in waiting:
            pending.settle(error or NoLeader("this node does not lead"))
