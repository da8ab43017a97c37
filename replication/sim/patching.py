"""Makes the rest of the process deterministic for as long as a simulation runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

from pysyncobj import syncobj
from pysyncobj.node import Node

from ...storage import folder, wal_segment
from .. import catchup, engine, following, raft, snapshot_source

BOUNDS: list[tuple[Any, str, Any]] = [
    (raft, "BATCH_BYTES", 4 << 10),
    (raft, "WINDOW_BYTES", 24 << 10),
    (raft, "CAUGHT_UP_BYTES", 2 << 10),
    (following, "APPLY_BYTES", 16 << 10),
    (engine, "LOAD_BYTES", 4 << 10),
    (catchup, "PIECE_BYTES", 3 << 10),
    (snapshot_source, "IDLE_S", 4.0),
]
"""Small, so that a few records are a long way."""


class StableSecrets:
    """In the place of the module `secrets`."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def randbelow(self, bound: int) -> int:
        return self._rng.randrange(bound)

    def token_hex(self, size: int) -> str:
        return self._rng.randbytes(size).hex()


@contextmanager
def patched(monotonic: Callable[[], float], seed: int) -> Iterator[None]:
    """Put time and chance of pysyncobj and of the write-ahead log into the simulation's hands."""
    replaced: list[tuple[Any, str, Any]] = [
        (syncobj, "monotonicTime", monotonic),
        (syncobj, "random", Random(f"elections {seed}")),
        (Node, "__hash__", _stable_hash),
        (wal_segment, "secrets", StableSecrets(Random(f"segments {seed}"))),
        (folder, "secrets", StableSecrets(Random(f"folders {seed}"))),
        *BOUNDS,
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)


def _stable_hash(node: Node) -> int:
    """pysyncobj iterates over sets of nodes: their order must not hang on Python's hash seed."""
    return _stable_hash_of(node._id)


@cache
def _stable_hash_of(node_id: str) -> int:
    return zlib.crc32(node_id.encode())
