"""Whom a node speaks with: its cluster's members, and those who know better who that is.

Of two nodes that see different members the one with the newer list in its log is right, as soon as
that list is applied. So a node that was removed is turned away by all who know, one that slept
through its own cluster's change still hears a leader that it does not know, and one whose newest
list was never committed hears the leader that will take it away.
"""

from __future__ import annotations

from .members import Members
from .messages import PROTOCOL, Hello, Refusal


def why_refused(hello: Hello, members: Members, cluster_id: str | None) -> Refusal | None:
    """What to answer a node that introduces itself; None if it is welcome."""
    if hello.protocol != PROTOCOL:
        return Refusal(f"protocol {hello.protocol}, here it is {PROTOCOL}", is_stranger=False)
    if hello.target != members.node_id:
        return Refusal(f"this is {members.node_id}, not {hello.target}", is_stranger=False)
    if cluster_id and hello.cluster_id and hello.cluster_id != cluster_id:
        return Refusal(f"{hello.node} belongs to cluster {hello.cluster_id}", is_stranger=False)
    if members.may_be(hello.node):
        return None
    knows_better = hello.members_index > members.index and cluster_id in (None, hello.cluster_id)
    if knows_better:
        return None
    return Refusal(f"{hello.node} is not a member of this cluster", is_stranger=True)
