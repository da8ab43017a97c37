"""Commands in a Raft entry, and what apply makes of them: `replication.commands`, `machine`."""

from __future__ import annotations

from typing import Any

import msgspec

from cute_logger.replication.commands import (
    BadEntry,
    Command,
    CreateStream,
    decode_commands,
    encode_commands,
)
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.recent import Recent
from cute_logger.replication.snapshot import Snapshot, restore
from cute_logger.storage.log import LogState
from cute_logger.storage.record import Record, encode_records
from fuzz.choices import Choices, packed, type_of

_COMMANDS = type_of(list[Command])
_FIELDS = {kind.tag: kind.fields for kind in type_of(Command).types}
_BODY = encode_records([Record(b"a"), Record(None, b"k")])
_APPEND = [1, "s", _BODY, 2, 3, 10, 11, None, None, None, bytes(16)]
_SOUND: tuple[list[Any], ...] = (
    _APPEND,
    [1, "s", _BODY, 2, 3, 10, None, 0, [1, 0, 0], "k", bytes(16)],
    [1, "t", _BODY, 2, 3, 10, None, None, [2, 0, 0], "l", bytes(16)],
    [2, "t", {"segment.bytes": 200, "dedupe.max.entries": 1}, 20],
    [3, "s", 30],
    [4, "p", 40],
    [4, None, 40],
    [5, "c", 50],
    [6, "s", 1, 60, None],
    [7, "s", {"dedupe.window.ms": 1}, 70],
    [8, "g", "s", 1, None, 80],
    [8, "g", "s", 2, 1, 80],
    [9, "g", "s", "m", 1_000, 90],
    [10, "g", "s", None, "m", 100],
    [11, "g", 110],
    [12, [_APPEND, _APPEND], [[8, "g", "s", 3, None, 80]], "k", bytes(16), 120],
)
_SETTINGS = (
    "segment.bytes",
    "segment.ms",
    "retention.ms",
    "dedupe.window.ms",
    "dedupe.max.entries",
)


def target(data: bytes) -> None:
    choices = Choices(data)
    machine = new_machine()
    machine.apply(1, 1, memoryview(encode_commands([CreateStream("s", {}, 1)])))
    if choices.below(16) == 15:
        _apply(machine, choices.rest())
    else:
        for _ in range(1 + choices.below(4)):
            _apply(machine, _entry(choices))
    check_snapshot(machine)


def new_machine() -> StateMachine:
    return StateMachine(Recent(1 << 20), 1 << 20)


def _entry(choices: Choices) -> bytes:
    if choices.below(8) == 7:
        return packed(choices, _COMMANDS)
    return msgspec.msgpack.encode([_command(choices) for _ in range(1 + choices.below(5))])


def _command(choices: Choices) -> list[Any]:
    return _changed(choices.pick(_SOUND), choices)


def _changed(sound: list[Any], choices: Choices) -> list[Any]:
    command = list(sound)
    for _ in range(choices.below(3)):
        at = 1 + choices.below(len(command) - 1)
        if isinstance(command[at], dict):
            value = choices.pick((0, -1, 2**63, "", "1", True))
            command[at] = {choices.pick(_SETTINGS): value}
        elif isinstance(command[at], list) and choices.flag():
            command[at] = [
                _changed(each, choices) if isinstance(each, list) else each
                for each in command[at] * choices.below(3)
            ]
        elif isinstance(command[at], list):
            command[at] = [choices.number() if choices.flag() else each for each in command[at]]
        else:
            command[at] = choices.value(_FIELDS[command[0]][at - 1].type)
    return command


def _apply(machine: StateMachine, payload: bytes) -> None:
    """An entry is refused whole, or each of its commands has an answer."""
    try:
        commands = decode_commands(memoryview(payload))
    except BadEntry:
        return
    assert decode_commands(memoryview(encode_commands(commands))) == commands
    results = machine.apply(machine.applied_index + 1, 1, memoryview(payload))
    assert len(results) == len(commands)


def check_snapshot(machine: StateMachine) -> None:
    """A state that was reached can be kept, and comes back as it was."""
    logs = {
        stream.id: LogState(
            stream.log_start_offset,
            stream.next_offset,
            tuple((row.base_offset, row.size_bytes) for row in stream.segments.rows()),
        )
        for stream in machine.streams.values()
    }
    sections = list(Snapshot(machine).sections(logs))
    again = new_machine()
    assert restore(sections, again) == logs
    assert list(Snapshot(again).sections(logs)) == sections
