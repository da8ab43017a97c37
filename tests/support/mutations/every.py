"""All deliberate bugs: to import this registers them."""

from support.mutations import (  # noqa: F401
    compaction,
    conditions,
    damage,
    folders,
    groups,
    indexes,
    log,
    members,
    snapshots,
)
