"""The sections of a checkpoint make a state, or are refused before anything is opened by them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cute_logger.replication.machine import StateMachine
from cute_logger.replication.recent import Recent
from cute_logger.replication.snapshot import BadCheckpoint, log_states, meta_of, restore
from cute_logger.storage.log import LogState

META = [1, 9, 2, 1_000, "c", 3, 5, None, 0]
SEGMENTS = [[0, 5, 500, 1, 2], [5, 9, 400, 3, 4]]
LOG = [3, 9, [[0, 500], [5, 400]]]
STREAM = [2, 1, "s", {}, 3, 9, 4, bytes(16), SEGMENTS, 0, LOG]
KEYS = [3, "s", [["k", [5, 4, 4, 2, 8, bytes(16)]]]]
PRODUCERS = [4, [[1, 0, "p", 900, []]]]
SOUND = [META, STREAM, KEYS, PRODUCERS]


def restored(*rows: list[Any] | bytes) -> dict[int, LogState]:
    sections = [row if isinstance(row, bytes) else msgspec.msgpack.encode(row) for row in rows]
    return restore(sections, StateMachine(Recent(1 << 20), 1 << 20))


def with_log(log: Any, segments: Any = SEGMENTS) -> list[Any]:
    return [*STREAM[:8], segments, 0, log]


def test_sound_sections_are_restored() -> None:
    assert restored(*SOUND) == {1: LogState(3, 9, ((0, 500), (5, 400)))}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        SOUND[1:],
        [META, *SOUND],
        [STREAM, META],
        [b"", *SOUND],
        [META, b"\xc1"],
        [[1, 9, 2, 1_000, "c", 3, 5, b"\xff", 0]],
        [b"\x99\x01\x09\x02\x03\xa1\xff\x03\x05\xc0\x00"],
        [META, STREAM, STREAM],
        [META, STREAM, [2, 1, "t", *STREAM[3:]]],
        [META, KEYS],
        [META, [4, [[1, 0, "p", 900, []], [2, 0, "p", 900, []]]]],
        [META, [*STREAM[:7], b"short", *STREAM[8:]]],
        [META, [*STREAM[:5], -1, *STREAM[6:]]],
        [META, [*STREAM[:6], 2**63, *STREAM[7:]]],
        [META, with_log([])],
        [META, with_log([3, 9, [[0]]])],
        [META, with_log([3, 9, [[0, 500], 7]])],
        [META, with_log([3, 9, [["0", 500], [5, 400]]])],
        [META, with_log([3, 9, [[0, 500]]])],
        [META, with_log([3, 9, [[0, -1]]], [[0, 5, -1, 1, 2]])],
        [META, with_log([3, 9, [[5, 400], [0, 500]]], SEGMENTS[::-1])],
        [META, with_log([10, 9, LOG[2]])],
        [META, with_log([3, 10, LOG[2]])],
        [META, [*STREAM[:4], 10, *STREAM[5:]]],
        [META, with_log([3, 9, [[0, 2**32]]], [[0, 9, 2**32, 1, 2]])],
        [META, STREAM, [6, [["g", "t", [1, 2, None]]]]],
        [META, [5, 2**63, None, 1]],
        [META, [5, 0, None, -1]],
    ],
)
def test_anything_else_is_refused(rows: list[list[Any] | bytes]) -> None:
    with pytest.raises(BadCheckpoint):
        restored(*rows)


def test_parts_are_refused_too() -> None:
    with pytest.raises(BadCheckpoint):
        meta_of([])
    with pytest.raises(BadCheckpoint):
        meta_of([msgspec.msgpack.encode(STREAM)])
    with pytest.raises(BadCheckpoint):
        log_states([msgspec.msgpack.encode(with_log([]))])
