"""What lies in a Raft entry is understood or refused as a whole, and apply never fails."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cute_logger.replication import transactions
from cute_logger.replication.commands import (
    AcquireLease,
    AlterStream,
    BadEntry,
    CommitOffset,
    CreateStream,
    Transact,
    decode_commands,
    encode_commands,
)
from cute_logger.replication.errors import IdempotencyConflict
from cute_logger.replication.members import decode_config
from cute_logger.replication.snapshot import Snapshot, restore
from cute_logger.storage.log import LogState
from support.applied import Applied


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def append(**changes: Any) -> bytes:
    fields = {
        "stream": "s",
        "body": b"\x91\x94\xc0\xc0\xc0\xc0",
        "count": 1,
        "record_bytes_max": 0,
        "timestamp": 1,
        "max_timestamp": None,
        "if_offset": None,
        "producer": None,
        "key": None,
        "digest": bytes(16),
    }
    return pack([[1, *(fields | changes).values()]])


def test_an_append_like_these_is_understood() -> None:
    (command,) = decode_commands(memoryview(append()))
    assert decode_commands(memoryview(encode_commands([command]))) == [command]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91\x93\x02\xa1\xff\x80\x01",
        pack([[99, 1]]),
        append(count=0),
        append(count=2**32),
        append(timestamp=2**63),
        append(max_timestamp=2**63),
        append(producer=(-1, 0, 0)),
        append(producer=(1, 2**32, 0)),
        append(producer=(1, 0, -1)),
        append(body=bytes(16 << 20)),
        pack([[5, "c", 2**63]]),
        pack([[8, "g", "s", -1, None, 1]]),
        pack([[8, "g", "s", 1, 2**63, 1]]),
        pack([[9, "g", "s", "m", -1, 1]]),
        pack([[10, "g", "s", -1, None, 1]]),
        pack([[12, [], [], None, bytes(16), 2**63]]),
    ],
)
def test_what_no_leader_of_ours_writes_is_a_bad_entry(payload: bytes) -> None:
    with pytest.raises(BadEntry):
        decode_commands(memoryview(payload))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", pack([[["a", "h", 70_000]]]), pack([[["a", "h", -1]]]), b"\x91\x91\x93\xa1\xff"],
)
def test_what_is_no_list_of_members_is_a_bad_entry(payload: bytes) -> None:
    with pytest.raises(BadEntry):
        decode_config(payload)


@pytest.mark.parametrize("setting", ["dedupe.window.ms", "dedupe.max.entries", "segment.bytes"])
@pytest.mark.parametrize("value", ["much", "", -5, True, 2**64 - 1])
def test_a_setting_of_any_value_is_applied(setting: str, value: int | str | bool) -> None:
    """The front end checks settings; what is in the log is applied by every replica for ever."""
    applied = Applied()
    applied(CreateStream("s", {setting: value}, applied.now))
    assert applied.append(b"a", key="k").first_offset == 0
    assert applied.append(b"b", key="l").first_offset == 1
    applied(CreateStream("t", {}, applied.now), AlterStream("t", {setting: value}, applied.now))
    assert applied.append(b"a", stream="t", key="k").first_offset == 0


def test_a_lease_may_be_as_long_and_a_clock_may_jump_as_far_as_a_number_goes() -> None:
    """… and the state can still be kept."""
    applied = Applied()
    applied(CreateStream("s", {}, applied.now))
    for timestamp in (-(2**63), 2**63 - 1) * 2:
        applied(AcquireLease("g", "s", "m", 2**63 - 1, timestamp))
    sections = list(Snapshot(applied.machine).sections({1: LogState()}))
    again = Applied()
    restore(sections, again.machine)
    assert again.machine.groups.names() == ["g"]


def test_a_transaction_of_another_shape_is_no_repeat_whatever_its_digest() -> None:
    applied = Applied()
    applied(CreateStream("s", {}, applied.now))
    commit = CommitOffset("g", "s", 0, None, applied.now)
    parts = [applied.batch(b"a")]
    first = applied(Transact(parts, [commit], "k", bytes(16), applied.now))
    assert not first.duplicate
    for appends, commits in ((parts, []), ([], [commit]), (parts * 2, [commit])):
        repeat = applied(Transact(appends, commits, "k", bytes(16), applied.now))
        assert isinstance(repeat, IdempotencyConflict)
    assert applied(Transact(parts, [commit], "k", bytes(16), applied.now)).duplicate


def test_a_transaction_too_large_to_be_remembered_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "REMEMBERED_PARTS_MAX", 4)
    applied = Applied()
    applied(CreateStream("s", {}, applied.now))
    parts = [applied.batch(b"%d" % number) for number in range(5)]
    receipt = applied(Transact(parts, [], "k", bytes(16), applied.now))
    assert receipt.appends[-1].last_offset == 4
