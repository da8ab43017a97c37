"""Who is heard, by what the log says of the members."""

from __future__ import annotations

import pytest

from cute_logger.replication.introductions import why_refused
from cute_logger.replication.members import Config, Member, Members
from cute_logger.replication.messages import PROTOCOL, Hello

ALL = Config.of(Member(name, name, 0, incarnation="") for name in ("n0", "n1", "n2"))


@pytest.fixture
def members() -> Members:
    """Those of n1, which has appended at 7 that n0 goes."""
    members = Members("n1", "", Config(()))
    members.add(2, ALL)
    members.settle(2)
    members.add(7, ALL.without("n0"))
    return members


def hello(node: str, members_index: int) -> Hello:
    return Hello(PROTOCOL, node, None, None, "", (node, 0), members_index, "n1")


def test_a_leader_is_heard_that_only_an_uncommitted_list_leaves_out(members: Members) -> None:
    """It would overwrite that list, and cannot if it is turned away."""
    assert why_refused(hello("n0", 2), members, None) is None


def test_who_was_removed_is_turned_away_once_that_is_applied(members: Members) -> None:
    before = members.changes
    members.settle(7)
    refusal = why_refused(hello("n0", 2), members, None)
    assert refusal is not None
    assert refusal.is_stranger
    assert members.changes > before, "its open connections would stay"


def test_a_stranger_is_turned_away(members: Members) -> None:
    assert why_refused(hello("n9", 2), members, None) is not None


def test_who_has_a_newer_list_is_heard(members: Members) -> None:
    assert why_refused(hello("n9", 8), members, None) is None
