"""What a leader keeps in mind of those who follow it."""

from __future__ import annotations

from dataclasses import dataclass

from pysyncobj.node import Node


@dataclass(slots=True)
class Progress:
    """What the leader knows of one follower."""

    acked: int = 0
    """Everything up to here is durable there."""
    sequence: int = 0
    """Newest message of ours that it answered."""
    rewound_at: int = -1
    """Rejections of messages up to this sequence are answered already."""
    told_commit: int = 0
    """Newest commit index it was sent."""
    is_short: bool = False
    """Its disk has little room left …"""
    is_full: bool = False
    """… or none: it gets heartbeats only."""


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """What this node can offer to a follower that needs entries the log does not hold any more."""

    index: int
    term: int
    size: int


@dataclass(slots=True)
class HandOver:
    """Leadership on its way to another node; no proposals are taken meanwhile."""

    target: Node
    until: float
    sent: bool = False
