from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from support.arena import Arena, why_not

why_no_arena = cache(why_not)


@pytest.fixture(scope="module")
def shared_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    if reason := why_no_arena():
        pytest.skip(reason)
    arena = Arena(tmp_path_factory.mktemp("arena"))
    try:
        yield arena
    finally:
        arena.close()


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Arena]:
    """Three running nodes in whole networks and on whole disks; the test sees their network."""
    with shared_arena.entered():
        try:
            yield shared_arena
        finally:
            shared_arena.repair()
