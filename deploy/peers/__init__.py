"""Other systems that keep records on a majority's disks, one module each.

A module has a `System` (its servers, see `systems.System`), a `Target` (its ordinary Python client,
see `target.Target`) and says why it cannot be used here, if so. The clients are in
`requirements.txt`, none of them a dependency of the product.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("nats", "etcd", "rabbitmq", "zookeeper")


def load(name: str) -> ModuleType:
    """Import a peer's module. Raises ImportError if its client is not installed."""
    if name not in NAMES:
        raise ValueError(f"{name}: one of {', '.join(NAMES)} is wanted")
    return importlib.import_module(f"peers.{name}_peer")
