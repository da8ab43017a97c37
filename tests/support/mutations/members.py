"""What makes a change of members safe."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cute_logger.replication import raft, recovery
from cute_logger.replication.members import Members
from cute_logger.replication.progress import Progress
from cute_logger.replication.raft import RaftCore
from cute_logger.replication.snapshot import Snapshot
from support.mutations.registry import mutation


@mutation("two changes of members at once", "RaftCore.may_change_members", "members")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RaftCore, "may_change_members", lambda self: self.is_leader())
    patch.setattr(raft, "is_one_step", lambda old, new: True)


@mutation("the members in the log are not read at the start", "recovery._members", "members")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "MEMBERS", b"never")


@mutation("the members are not in the snapshot", "Snapshot.__init__", "members")
def _(patch: pytest.MonkeyPatch) -> None:
    original = Snapshot.__init__

    def init(self: Snapshot, machine: Any) -> None:
        original(self, machine)
        self.meta = msgspec.structs.replace(self.meta, members=None, members_index=0)

    patch.setattr(Snapshot, "__init__", init)


@mutation("a learner's acknowledgement counts as a voter's", "RaftCore._count", "members")
def _(patch: pytest.MonkeyPatch) -> None:
    original = RaftCore._count

    def count(self: RaftCore, node: Any, progress: Progress) -> None:
        original(self, node, progress)
        if node in self._learners:
            acked = min(progress.acked, self.journal.durable_index)
            for voter in self._others:
                self._match[voter] = max(self._match[voter], acked)

    patch.setattr(RaftCore, "_count", count)


@mutation("an empty disk votes under its old id", "Members.may_vote", "members")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "may_vote", lambda self, addressed: True)
