"""Whatever a frame carries, it is a message of ours or a BadFrame."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import xxhash

from cute_logger.replication.messages import (
    AppendEntries,
    BadFrame,
    Message,
    Refusal,
    SnapshotRead,
    decode_message,
    encode_frame,
)
from cute_logger.storage.wal import Entry


def decoded(body: bytes) -> Message:
    return decode_message(memoryview(body), xxhash.xxh3_64_intdigest(body))


def pack(*fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "message",
    [
        Refusal("who are you?", is_stranger=True),
        AppendEntries(3, 9, 6, 7, 2, [Entry(b"a", 8, 3), Entry(b"", 9, 3)]),
        SnapshotRead(1, 2**63 - 1, None, 0, 5, 6),
    ],
)
def test_what_was_said_is_heard(message: Message) -> None:
    assert decoded(encode_frame(message)[1]) == message


def test_a_text_that_is_not_utf_8_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame):
        decoded(b"\x93\x0d\xa1\xff\xc3")


@pytest.mark.parametrize(
    "body",
    [
        pack(11, 1, 2, None, 0, -1, 6),
        pack(11, 1, 2, None, 0, 5, -6),
        pack(11, 1, 2, None, 2**63, 5, 6),
        pack(1, -1, 9, 6, 7, 2, []),
        pack(1, 3, 9, 6, 7, 2, [[b"a", -8, 3]]),
        pack(1, 3, 9, 6, 7, 2, [[b"a", 8, 2**64 - 1]]),
        pack(0, 2, "b", None, None, "beef", ["127.0.0.1", 65_536], 0, "a"),
    ],
)
def test_a_number_that_no_log_and_no_file_can_have_is_a_bad_frame(body: bytes) -> None:
    with pytest.raises(BadFrame):
        decoded(body)
