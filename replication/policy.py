"""What a stream's settings mean for the keeping of its records; pure, and the same on all nodes.

`cleanup.policy`: `delete` lets whole segments go by age, size and number; `compact` keeps the
newest record of each key; `compact,delete` does both. An `immutable` stream is never trimmed,
compacted or deleted, and nobody can change that, nor the settings it concerns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .types import StreamConfig

IMMUTABLE: Final = "immutable"
POLICY: Final = "cleanup.policy"
RETENTION: Final = ("retention.ms", "retention.bytes", "retention.records")
KEPT: Final = (
    IMMUTABLE,
    POLICY,
    *RETENTION,
    "min.compaction.lag.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
    "delete.retention.ms",
)
"""Settings that an immutable stream keeps."""


def compacts(config: StreamConfig) -> bool:
    return "compact" in _policies(config)


def deletes(config: StreamConfig) -> bool:
    return "delete" in _policies(config)


def is_immutable(config: StreamConfig) -> bool:
    return config.get(IMMUTABLE) is True


def _policies(config: StreamConfig) -> list[str]:
    return str(config.get(POLICY, "delete")).split(",")


def forbidden_change(config: StreamConfig, changes: StreamConfig) -> str | None:
    """Return the setting that an immutable stream keeps and that is to change, if there is one."""
    if not is_immutable(config):
        return None
    changed = (name for name in KEPT if name in changes and changes[name] != config.get(name))
    return next(changed, None)


def contradiction(config: StreamConfig) -> tuple[str, str] | None:
    """Return a setting that cannot be had with another one, and why."""
    if not is_immutable(config):
        return None
    if compacts(config):
        return POLICY, "an immutable stream is not compacted"
    for name in RETENTION:
        value = config.get(name, -1)
        if isinstance(value, int) and value >= 0:
            return name, "an immutable stream keeps all its records"
    return None


def ratio(config: Mapping[str, int | str | bool]) -> float:
    """Return `min.cleanable.dirty.ratio`; what the leader alone decides by may be no integer."""
    try:
        return float(config.get("min.cleanable.dirty.ratio", "0.5"))
    except ValueError:
        return 0.5
