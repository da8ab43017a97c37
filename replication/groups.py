"""Consumer groups: how far each has come in each stream, and who may say so.

A *position* is one group's place in one stream: the committed offset and the lease on it. All of it
is replicated state, changed in apply only. A position is never changed, only replaced, so that a
snapshot may hold on to it.

- A committed offset never expires. It stays when its stream is trimmed, and goes with the stream.
- A lease is a number larger than all before it. Whoever holds the newest one of a position commits;
  any other commit is refused, one without a lease too while the lease has not expired.
- An expired lease is as good as before until somebody else asks for it or commits without one: its
  holder was slow, but nobody has begun in its place.
- Under a lease a committed offset does not go back: a late copy of an older commit cannot undo a
  newer one. To go back, commit without a lease.

Leases expire by a time of their own, which only the entries' timestamps move: by how much each is
later than the one before. A leader's clock that jumps ahead ends leases early, which fencing makes
harmless; one that is set back stretches them by one pause between entries at most. By log time, as
keys expire, nobody would lose a lease until the clock is where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..storage.wal_frame import NUMBER_MAX, Number
from .commands import AcquireLease, CommitOffset, ReleaseLease, Timestamp
from .errors import (
    BeyondHighWatermark,
    ConditionFailed,
    LeaseLost,
    Refused,
    Throttled,
    UnknownGroup,
)
from .stream import Stream
from .types import CommitReceipt, GroupPosition, LeaseGrant, LeaseInfo

POSITIONS_MAX = 20_000
"""Pairs of a group and a stream; so there are no more groups, and no more leases."""


class Lease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: int
    member: str
    expires_at: int
    """On the table's own clock, ms."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    offset: int | None = None
    committed_at: int | None = None
    lease: Lease | None = None


class GroupMeta(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What the checkpoint keeps beside the positions."""

    time_ms: Number
    last_timestamp: Timestamp | None
    next_lease: Number


Row = tuple[str, str, Position]
"""Group, stream, position."""

_NOWHERE = Position()


class GroupTable:
    def __init__(self) -> None:
        self.time_ms = 0
        """Passed since the first lease, as far as entries told."""
        self._last_timestamp: int | None = None
        self._next_lease = 1
        self._groups: dict[str, dict[str, Position]] = {}
        self._count = 0

    def __len__(self) -> int:
        """The number of groups."""
        return len(self._groups)

    def tick(self, timestamp: int) -> None:
        """An entry that concerns groups was proposed at `timestamp`."""
        if self._last_timestamp is not None:
            passed_ms = max(0, timestamp - self._last_timestamp)
            self.time_ms = min(self.time_ms + passed_ms, NUMBER_MAX)
        self._last_timestamp = timestamp

    # ---- looking

    def names(self) -> list[str]:
        return sorted(self._groups)

    def positions(self, group: str) -> list[tuple[str, Position]]:
        """The group's streams, by name, with its position in each. Empty: no such group."""
        return sorted(self._groups.get(group, {}).items())

    def find(self, group: str, stream: str) -> Position | None:
        return self._groups.get(group, {}).get(stream)

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def left_ms(self, lease: Lease, since_ms: int = 0) -> int:
        """Until `lease` expires, seen `since_ms` after the newest entry that told the time."""
        return max(0, lease.expires_at - self.time_ms - since_ms)

    def since_ms(self, now: int) -> int:
        """Time from the newest such entry to `now`, ms since the epoch on a local clock."""
        return 0 if self._last_timestamp is None else max(0, now - self._last_timestamp)

    def lag_max(self, streams: Mapping[str, Stream]) -> int:
        """The largest lag of any position; 0 if nothing is committed."""
        return max(
            (
                streams[stream].next_offset - position.offset
                for _, stream, position in self._rows()
                if position.offset is not None
            ),
            default=0,
        )

    # ---- commits

    def refusal_of(self, commit: CommitOffset, next_offset: int) -> Refused | None:
        """Why it may not be; `next_offset` is the high watermark it is to be judged by."""
        known = self.find(commit.group, commit.stream)
        if known is None and not self._has_room():
            return self._no_room()
        position = known or _NOWHERE
        lease = position.lease
        if commit.lease is None and lease is not None and self.left_ms(lease):
            return self._lost(lease)
        if commit.lease is not None:
            if lease is None or lease.id != commit.lease:
                return self._lost(lease)
            if position.offset is not None and commit.offset < position.offset:
                return ConditionFailed(
                    f"under a lease no offset below the committed {position.offset} is taken",
                    actual=position.offset,
                )
        if commit.offset > next_offset:
            return BeyondHighWatermark(
                f"offset {commit.offset} does not exist yet", high_watermark=next_offset
            )
        return None

    def commit(self, commit: CommitOffset, stream: Stream, index: int, term: int) -> CommitReceipt:
        """Carry out a commit for which there is no refusal."""
        position = self.find(commit.group, commit.stream) or _NOWHERE
        # Without a lease it goes over an expired one, whose holder is not to overwrite it.
        lease = position.lease if commit.lease is not None else None
        self._put(commit.group, stream.name, Position(commit.offset, commit.timestamp, lease))
        return commit_receipt(commit, stream.next_offset, index, term)

    # ---- leases

    def acquire(
        self, command: AcquireLease, stream: Stream, index: int, term: int
    ) -> LeaseGrant | Refused:
        """A lease for `member`: the one it has, for longer, or a new one if nobody holds it."""
        position = self.find(command.group, command.stream)
        if position is None and not self._has_room():
            return self._no_room()
        position = position or _NOWHERE
        lease = position.lease
        if lease is not None and lease.member != command.member and self.left_ms(lease):
            return self._lost(lease)
        if lease is None or lease.member != command.member:
            lease_id, self._next_lease = self._next_lease, self._next_lease + 1
        else:
            lease_id = lease.id
        lease = Lease(lease_id, command.member, self.time_ms + command.ttl_ms)
        self._put(command.group, stream.name, msgspec.structs.replace(position, lease=lease))
        return LeaseGrant(
            command.group,
            stream.name,
            command.member,
            lease_id,
            command.ttl_ms,
            position.offset,
            stream.next_offset,
            term,
            index,
        )

    def release(self, command: ReleaseLease) -> Refused | None:
        """Fine if nobody holds the lease: a repeat finds that."""
        position = self.find(command.group, command.stream)
        lease = position.lease if position is not None else None
        if position is None or lease is None:
            return None
        if command.lease not in (None, lease.id) or command.member not in (None, lease.member):
            return self._lost(lease)
        if position.offset is None:
            self._remove(command.group, command.stream)
        else:
            released = msgspec.structs.replace(position, lease=None)
            self._put(command.group, command.stream, released)
        return None

    def _lost(self, lease: Lease | None) -> LeaseLost:
        if lease is None:
            return LeaseLost("this lease has ended", member=None, expires_in_ms=0)
        return LeaseLost(
            f"the lease is {lease.member}'s", member=lease.member, expires_in_ms=self.left_ms(lease)
        )

    # ---- what there is

    def delete(self, group: str) -> Refused | None:
        positions = self._groups.get(group)
        if positions is None:
            return unknown_group(group)
        for position in positions.values():
            if position.lease is not None and self.left_ms(position.lease):
                return self._lost(position.lease)
        del self._groups[group]
        self._count -= len(positions)
        return None

    def forget_stream(self, stream: str) -> None:
        for group in [name for name, streams in self._groups.items() if stream in streams]:
            self._remove(group, stream)

    def _put(self, group: str, stream: str, position: Position) -> None:
        positions = self._groups.setdefault(group, {})
        self._count += stream not in positions
        positions[stream] = position

    def _remove(self, group: str, stream: str) -> None:
        positions = self._groups[group]
        del positions[stream]
        self._count -= 1
        if not positions:
            del self._groups[group]

    def _has_room(self) -> bool:
        """May there be one position more? What only held a lease that expired makes room."""
        if self._count >= POSITIONS_MAX:
            for group, stream, position in self.dump():
                lease = position.lease
                if position.offset is None and (lease is None or not self.left_ms(lease)):
                    self._remove(group, stream)
        return self._count < POSITIONS_MAX

    @staticmethod
    def _no_room() -> Throttled:
        return Throttled("there are too many groups; delete some", limit_positions=POSITIONS_MAX)

    # ---- the checkpoint

    def meta(self) -> GroupMeta:
        return GroupMeta(self.time_ms, self._last_timestamp, self._next_lease)

    def dump(self) -> list[Row]:
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        for group, positions in self._groups.items():
            for stream, position in positions.items():
                yield group, stream, position

    def load_meta(self, meta: GroupMeta) -> None:
        self.time_ms, self._last_timestamp = meta.time_ms, meta.last_timestamp
        self._next_lease = meta.next_lease

    def load(self, rows: list[Row]) -> None:
        for group, stream, position in rows:
            self._put(group, stream, position)


def unknown_group(name: str) -> UnknownGroup:
    return UnknownGroup(f"there is no group {name}", group=name)


def commit_receipt(
    commit: CommitOffset, high_watermark: int, index: int, term: int
) -> CommitReceipt:
    lag = high_watermark - commit.offset
    return CommitReceipt(
        commit.group, commit.stream, commit.offset, high_watermark, lag, term, index
    )


def describe(
    table: GroupTable, group: str, stream: Stream, position: Position | None, now: int
) -> GroupPosition:
    """`now`: this node's clock, ms since the epoch."""
    position = position or _NOWHERE
    lease = position.lease
    held = None
    if lease is not None:
        held = LeaseInfo(lease.member, table.left_ms(lease, table.since_ms(now)))
    return GroupPosition(
        group,
        stream.name,
        position.offset,
        position.committed_at,
        stream.log_start_offset,
        stream.next_offset,
        stream.next_offset
        - (stream.log_start_offset if position.offset is None else position.offset),
        held,
    )
