"""A state machine that is fed what consumer groups do, and copies of it by snapshot."""

from __future__ import annotations

from typing import Any

import msgspec

from cute_logger.replication import snapshot
from cute_logger.replication.commands import (
    AcquireLease,
    AppendBatch,
    CommitOffset,
    CreateStream,
    ReleaseLease,
    Transact,
)
from cute_logger.replication.machine import StateMachine
from cute_logger.storage.log import LogState
from support.applied import Applied


class GroupFeed(Applied):
    """Streams `s` and `t`; the group is `g` and the stream `s` where nothing else is said."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("s", "t"):
            self(CreateStream(name, {"max.message.bytes": 100}, self.now))

    def commit(
        self, offset: int, lease: int | None = None, *, group: str = "g", stream: str = "s"
    ) -> Any:
        return self(self.part(offset, lease, group=group, stream=stream))

    def part(
        self, offset: int, lease: int | None = None, *, group: str = "g", stream: str = "s"
    ) -> CommitOffset:
        return CommitOffset(group, stream, offset, lease, self.now)

    def acquire(self, member: str, ttl_ms: int = 1000, **where: str) -> Any:
        group, stream = where.get("group", "g"), where.get("stream", "s")
        return self(AcquireLease(group, stream, member, ttl_ms, self.now))

    def release(self, lease: int | None = None, member: str | None = None) -> Any:
        return self(ReleaseLease("g", "s", lease, member, self.now))

    def transact(
        self, appends: list[AppendBatch], commits: list[CommitOffset], key: str | None = None
    ) -> Any:
        named = [(part.stream, part.digest) for part in appends]
        named += [(part.stream, b"%d" % part.offset) for part in commits]
        digest = msgspec.msgpack.encode(named)
        return self(Transact(appends, commits, key, digest, self.now))

    def committed(self, group: str = "g", stream: str = "s") -> int | None:
        position = self.machine.groups.find(group, stream)
        return position.offset if position is not None else None

    def copy(self) -> GroupFeed:
        """Another one, made from a snapshot of this one."""
        other = GroupFeed.__new__(GroupFeed)
        Applied.__init__(other)
        other.now = self.now
        snapshot.restore(saved(self.machine), other.machine)
        return other


def saved(machine: StateMachine) -> list[bytes]:
    """The checkpoint's sections: all that is replicated."""
    logs = {
        stream.id: LogState(
            stream.log_start_offset,
            stream.next_offset,
            tuple((row.base_offset, row.size_bytes) for row in stream.segments.rows()),
        )
        for stream in machine.streams.values()
    }
    return list(snapshot.Snapshot(machine).sections(logs))
