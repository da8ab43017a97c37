"""The sections of a checkpoint, whatever is in them: `replication.snapshot`."""

from __future__ import annotations

from typing import Any

import msgspec

from cute_logger.replication.commands import AppendBatch, encode_commands
from cute_logger.replication.snapshot import (
    BadCheckpoint,
    Section,
    Snapshot,
    log_states,
    meta_of,
    restore,
)
from fuzz.choices import Choices, edited, packed, type_of
from fuzz.targets.commands import check_snapshot, new_machine

_SECTION = type_of(Section)
_FIELDS = {kind.tag: kind.fields for kind in _SECTION.types}
_META = [1, 9, 2, 1_000, "c", 3, 5, [[["a", "127.0.0.1", 1, True, "beef", False]]], 4]
_SEGMENTS = [[0, 5, 500, 1, 2], [5, 9, 400, 3, 4]]
_STREAM = [2, 1, "s", {"segment.bytes": 500}, 3, 9, 4, bytes(16), _SEGMENTS, 0]
_LOG = [3, 9, [[0, 500], [5, 400]]]
_EMPTY = [2, 2, "t", {}, 0, 0, None, bytes(16), [], 0, [0, 0, []]]
_APPENDED = [5, 4, 4, 2, 8, bytes(16)]
_KEYS = [3, "s", [["k", _APPENDED], ["l", _APPENDED]]]
_PRODUCERS = [4, [[1, 0, None, 900, []], [4, 2, "p", 950, [[1, [[0, _APPENDED]]]]]]]


_GROUPS = [
    [5, 10, 20, 2],
    [6, [["g", "s", [3, 100, [1, "m", 500]]], ["g", "t", [None, None, None]]]],
]
_TRANSACTIONS = [7, [["k", [900, 1, 2, bytes(16), [0], [5], [9]]]]]


def target(data: bytes) -> None:
    choices = Choices(data)
    match choices.below(4):
        case 0:
            sections = [choices.binary(255) for _ in range(1 + choices.below(4))]
        case 1:
            sections = [packed(choices, _SECTION) for _ in range(1 + choices.below(6))]
        case _:
            sections = _nearly_sound(choices)
    _check(sections)


def _nearly_sound(choices: Choices) -> list[bytes]:
    streams = [[*_STREAM, _LOG], _EMPTY]
    rows: list[list[Any]] = [_META, *streams, _KEYS, _PRODUCERS, *_GROUPS, _TRANSACTIONS]
    for _ in range(choices.below(3)):
        number = choices.below(len(rows))
        match choices.below(8):
            case 0:
                del rows[number : number + choices.below(2)]
                rows = rows or [_META]
            case 1:
                rows.insert(number, rows[choices.below(len(rows))])
            case 2:
                rows.append(_stream(choices))
            case _:
                row = rows[number]
                at = 1 + choices.below(len(row) - 1)
                value = choices.value(_FIELDS[row[0]][at - 1].type)
                rows[number] = [*row[:at], value, *row[at + 1 :]]
    sections = [msgspec.msgpack.encode(row) for row in rows]
    if choices.below(8) == 7:
        number = choices.below(len(sections))
        sections[number] = edited(sections[number], choices)
    return sections


def _stream(choices: Choices) -> list[Any]:
    """A stream whose log says the same as its segments, in any order."""
    segments = [
        [choices.below(8), choices.below(8), choices.below(1 << 32), 1, 2]
        for _ in range(choices.below(4))
    ]
    log = [choices.below(4), 9, [[base, size] for base, _, size, _, _ in segments]]
    return [2, 3, "u", {}, choices.below(12), 9, 4, bytes(16), segments, 0, log]


def _check(sections: list[bytes]) -> None:
    """Sections are refused, or make a state that can be kept again."""
    machine = new_machine()
    try:
        logs = restore(sections, machine)
    except BadCheckpoint:
        return
    assert log_states(sections) == logs
    assert meta_of(sections) == Snapshot(machine).meta
    check_snapshot(machine)
    for name in list(machine.streams):
        append = AppendBatch(name, b"\x90", 1, 0, 5, None, None, (4, 2, 1), "k", bytes(16))
        machine.apply(machine.applied_index + 1, 9, memoryview(encode_commands([append])))
