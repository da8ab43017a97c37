"""Ports for the servers of tests."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from typing import Final

FIRST: Final = 18_000
SHARE: Final = 2_000
SHARES: Final = 7
"""All of them lie below the ports that the kernel gives to connections."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, and that were not returned before.

    Every process of a parallel run has a share of its own, so that none takes another one's between
    a look and its use.
    """
    return [next(_ports()) for _ in range(count)]


@cache
def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker % SHARES * SHARE
    ports = list(range(first, first + SHARE))
    random.Random(os.getpid()).shuffle(ports)
    return (port for port in ports if is_free(port))


def is_free(port: int) -> bool:
    """Does nobody listen there?"""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
