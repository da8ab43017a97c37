"""What the rules of groups, leases and transactions make of the log, judged a second time.

Told of every entry once, in the log's order, with what the state machine answered. It knows the
rules in their plainest form and nothing of the machine's tables, and says where the two disagree:

- A commit under a lease counts while no newer one was given for its place; it never goes back.
- A commit without a lease counts unless somebody's lease has not expired.
- A lease is given to one member at a time, under a number larger than all before it.
- All parts of a transaction or none, each judged by what those before it do; once for each key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..commands import (
    AcquireLease,
    AppendBatch,
    Command,
    CommitOffset,
    CreateStream,
    DeleteGroup,
    DeleteStream,
    ReleaseLease,
    Transact,
)
from ..errors import (
    BeyondHighWatermark,
    ConditionFailed,
    IdempotencyConflict,
    LeaseLost,
    Refused,
    UnknownGroup,
    UnknownStream,
)
from ..groups import GroupTable
from ..types import Receipt, TransactionReceipt

Place = tuple[str, str]
"""Group and stream."""
Verdict = type[Refused] | None
"""Which refusal the rules ask for."""


@dataclass(frozen=True, slots=True)
class Held:
    """A group's place in a stream."""

    offset: int | None = None
    lease: int | None = None
    member: str = ""
    expires_at: int = 0


_NOTHING = Held()


class GroupModel:
    def __init__(self, violate: Callable[[str, str], None]) -> None:
        self.committed: set[tuple[int, str, str, int]] = set()
        """Every commit that counted: index, group, stream, offset."""
        self._violate = violate
        self._held: dict[Place, Held] = {}
        self._past: defaultdict[Place, list[tuple[int, Held | None]]] = defaultdict(list)
        """What became of each place, by index."""
        self._ends: dict[str, int] = {}
        """The next offset of each stream there is."""
        self._done: dict[str, tuple[int, bytes]] = {}
        """Index and digest of each transaction with a key."""
        self._lease = 0
        self._time_ms = 0
        self._told_ms: int | None = None
        self._index = 0

    # ---- what a node shows

    def check_node(self, where: str, index: int, table: GroupTable) -> None:
        """A node that has applied `index` shows what the log made of it up to there."""
        shown = {
            (group, stream): (position.offset, position.lease and position.lease.id)
            for group, stream, position in table.dump()
        }
        due = {
            place: (held.offset, held.lease)
            for place in self._past
            if (held := self._at(place, index)) is not None
        }
        if shown != due:
            self._violate("groups differ", f"{where} at {index}: {shown} instead of {due}")

    def _at(self, place: Place, index: int) -> Held | None:
        past = self._past[place]
        at = bisect_right(past, index, key=lambda each: each[0])
        return past[at - 1][1] if at else None

    # ---- the log

    def applied(self, index: int, command: Command, result: Any) -> None:
        self._index = index
        if isinstance(command, CreateStream) and isinstance(result, tuple):
            self._ends.setdefault(command.name, 0)
        elif isinstance(command, DeleteStream) and result is None:
            del self._ends[command.name]
            for place in [place for place in self._held if place[1] == command.name]:
                self._put(place, None)
        elif isinstance(command, AppendBatch):
            self._appended(command, result)
        elif isinstance(command, Transact):
            self._transact(command, result)
        elif isinstance(command, DeleteGroup):
            self._tick(command.timestamp)
            self._delete(command, result)
        elif isinstance(command, (CommitOffset, AcquireLease, ReleaseLease)):
            if command.stream not in self._ends:
                self._expect(UnknownStream, result, "refused for no reason")
                return
            self._tick(command.timestamp)
            self._one(command, result)

    def _one(self, command: CommitOffset | AcquireLease | ReleaseLease, result: Any) -> None:
        if isinstance(command, CommitOffset):
            self._expect(self._of_commit(command, self._ends), result, _COMMITS)
            if not isinstance(result, Refused):
                self._commit(command)
        elif isinstance(command, AcquireLease):
            self._acquire(command, result)
        else:
            self._release(command, result)

    def _expect(self, verdict: Verdict, result: Any, kind: str) -> None:
        """Complain if another answer was given than the rules have; `kind`: of one too generous."""
        given = type(result) if isinstance(result, Refused) else None
        if given is not verdict:
            kind = "refused for no reason" if given is not None and verdict is None else kind
            due = verdict.__name__ if verdict is not None else "no refusal"
            self._violate(kind, f"entry {self._index}: {result!r}, due is {due}")

    def _tick(self, timestamp: int) -> None:
        if self._told_ms is not None:
            self._time_ms += max(0, timestamp - self._told_ms)
        self._told_ms = timestamp

    def _put(self, place: Place, held: Held | None) -> None:
        if held is None or held == _NOTHING:
            self._held.pop(place, None)
            held = None
        else:
            self._held[place] = held
        self._past[place].append((self._index, held))

    def _is_leased(self, held: Held) -> bool:
        return held.lease is not None and held.expires_at > self._time_ms

    # ---- commits and leases

    def _of_commit(self, commit: CommitOffset, ends: dict[str, int]) -> Verdict:
        held = self._held.get((commit.group, commit.stream), _NOTHING)
        if commit.lease is None and self._is_leased(held):
            return LeaseLost
        if commit.lease is not None and commit.lease != held.lease:
            return LeaseLost
        if commit.lease is not None and commit.offset < (held.offset or 0):
            return ConditionFailed
        return BeyondHighWatermark if commit.offset > ends[commit.stream] else None

    def _commit(self, commit: CommitOffset) -> None:
        place = (commit.group, commit.stream)
        held = self._held.get(place, _NOTHING)
        if commit.lease is None:
            held = _NOTHING
        self._put(place, replace(held, offset=commit.offset))
        self.committed.add((self._index, *place, commit.offset))

    def _acquire(self, command: AcquireLease, result: Any) -> None:
        place = (command.group, command.stream)
        held = self._held.get(place, _NOTHING)
        is_others = self._is_leased(held) and held.member != command.member
        self._expect(LeaseLost if is_others else None, result, "two holders of a lease")
        if isinstance(result, Refused):
            return
        is_renewal = held.lease is not None and held.member == command.member
        if is_renewal and result.lease != held.lease:
            self._violate("a lease changes its number", f"entry {self._index}: {result}")
        if not is_renewal and result.lease <= self._lease:
            self._violate("an old lease is given again", f"entry {self._index}: {result}")
        if result.offset != held.offset:
            text = f"entry {self._index}: {result}, committed is {held.offset}"
            self._violate("committed but lost", text)
        self._lease = max(self._lease, result.lease)
        ends_at = self._time_ms + command.ttl_ms
        self._put(place, Held(held.offset, result.lease, command.member, ends_at))

    def _release(self, command: ReleaseLease, result: Any) -> None:
        place = (command.group, command.stream)
        held = self._held.get(place, _NOTHING)
        if held.lease is None:
            self._expect(None, result, _COMMITS)
            return
        is_others = command.lease not in (None, held.lease)
        is_others = is_others or command.member not in (None, held.member)
        self._expect(LeaseLost if is_others else None, result, "a lease is taken away")
        if not isinstance(result, Refused):
            self._put(place, Held(held.offset))

    def _delete(self, command: DeleteGroup, result: Any) -> None:
        places = [place for place in self._held if place[0] == command.name]
        verdict: Verdict = None if places else UnknownGroup
        if any(self._is_leased(self._held[place]) for place in places):
            verdict = LeaseLost
        self._expect(verdict, result, "a lease is taken away")
        if not isinstance(result, Refused):
            for place in places:
                self._put(place, None)

    # ---- appends and transactions

    def _appended(self, command: AppendBatch, result: Any) -> None:
        if isinstance(result, Receipt) and not result.duplicate:
            if result.first_offset != self._ends[command.stream]:
                self._violate("not where the stream ended", f"entry {self._index}: {result}")
            self._ends[command.stream] = result.last_offset + 1

    def _transact(self, command: Transact, result: Any) -> None:
        known = self._done.get(command.key) if command.key is not None else None
        if known is not None:
            self._repeat(command, known, result)
            return
        self._tick(command.timestamp)
        ends = dict(self._ends)
        self._expect(self._of_transaction(command, ends), result, "part of a transaction")
        if isinstance(result, TransactionReceipt):
            if result.duplicate or result.index != self._index:
                self._violate("no such transaction before", f"entry {self._index}: {result}")
            for append, receipt in zip(command.appends, result.appends, strict=True):
                self._appended(append, receipt)
            for commit in command.commits:
                self._commit(commit)
            if command.key is not None:
                self._done[command.key] = (self._index, command.digest)

    def _repeat(self, command: Transact, known: tuple[int, bytes], result: Any) -> None:
        index, digest = known
        self._expect(
            None if command.digest == digest else IdempotencyConflict, result, "done twice"
        )
        if isinstance(result, TransactionReceipt) and (
            not result.duplicate or result.index != index
        ):
            self._violate("done twice", f"entry {self._index}, first {index}: {result}")

    def _of_transaction(self, command: Transact, ends: dict[str, int]) -> Verdict:
        """Moves `ends` on by what the appends would add."""
        for append in command.appends:
            if append.stream not in ends:
                return UnknownStream
            if append.if_offset not in (None, ends[append.stream]):
                return ConditionFailed
            ends[append.stream] += append.count
        for commit in command.commits:
            verdict = self._of_commit(commit, ends) if commit.stream in ends else UnknownStream
            if verdict is not None:
                return verdict
        return None


_COMMITS = "a commit that does not count"
