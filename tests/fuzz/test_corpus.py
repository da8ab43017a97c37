"""Every parser of bytes from a socket or a file, on what fuzzing kept and on changes of it.

The long form is `make fuzz` (`run.py`). A failure here shows the smallest input that fails; put it
into `corpus/<target>/found-…` with the mending.
"""

from __future__ import annotations

import importlib
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.py"))
MEMORY_BYTES_MAX = 24 << 20
"""For inputs of some KB: what a target builds, its disk in memory, a reader's largest window."""

Edit: TypeAlias = tuple[int, int, bytes]
"""Position, bytes left out there, bytes put in."""

EDITS = st.lists(
    st.tuples(st.integers(0, 4095), st.integers(0, 3), st.binary(max_size=4)), max_size=4
)


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """What is wrong with an input is logged; this once nobody wants to know."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def load(name: str) -> Callable[[bytes], None]:
    target: Callable[[bytes], None] = importlib.import_module(f"fuzz.targets.{name}").target
    return target


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_still_holds_and_takes_little_memory(name: str) -> None:
    target, inputs = load(name), corpus(name)
    target(inputs[0])
    tracemalloc.start()
    try:
        for data in inputs:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            target(data)
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY_BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_what_differs_a_little_holds_too(name: str) -> None:
    target, inputs = load(name), corpus(name)

    @settings(
        max_examples=200,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(inputs), EDITS)
    def check(data: bytes, edits: list[Edit]) -> None:
        target(edited(data, edits))

    check()


def edited(data: bytes, edits: list[Edit]) -> bytes:
    for position, left_out, put_in in edits:
        at = position % (len(data) + 1)
        data = data[:at] + put_in + data[at + left_out :]
    return data


def test_the_corpus_is_small() -> None:
    sizes = [path.stat().st_size for path in (HERE / "corpus").rglob("*") if path.is_file()]
    assert sum(sizes) < 200_000
    assert set(TARGETS) == {path.name for path in (HERE / "corpus").iterdir()}
