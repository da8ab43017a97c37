"""What comes through the fast door: `node.door.frames`, and the heads of its appends."""

from __future__ import annotations

import contextlib

from cute_logger.client.frames import frames_in
from cute_logger.node.door.append_call import _sent
from cute_logger.node.door.door import _follow_head
from cute_logger.node.door.frames import (
    APPEND,
    FRAME,
    AppendHead,
    Frame,
    FrameReader,
    MalformedFrame,
    credit_of,
)
from cute_logger.node.http.problems import Problem
from fuzz.choices import Choices, edited, packed, type_of

_HEAD = type_of(AppendHead)
_SIZE_MAX = 4096


def target(data: bytes) -> None:
    """However the bytes are cut, the same frames come out; what is wrong in one is refused with a
    word for its sender.
    """
    choices = Choices(data)
    sent = b"".join(_frame(choices) for _ in range(choices.below(4)))
    if choices.below(4) == 3:
        sent = edited(sent, choices)
    sent += choices.take(choices.below(12))
    whole = _read([sent])
    assert _read(_pieces(sent, choices)) == whole
    frames, is_broken = whole
    if not is_broken:
        assert [tuple(frame) for frame in frames_in(sent)[0]] == [tuple(each) for each in frames]
    for frame in frames:
        _look_into(frame)
    _skip(sent, choices)


def _frame(choices: Choices) -> bytes:
    head = packed(choices, _HEAD)
    head_size = len(head) if choices.below(8) else choices.below(1 << 16)
    payload = head_size.to_bytes(2, "little") + head + choices.binary(16)
    size = 5 + len(payload) if choices.below(8) else choices.number() % 2**32
    kind = APPEND if choices.below(4) else choices.below(256)
    return FRAME.pack(size, choices.below(1 << 32), kind) + payload


def _pieces(sent: bytes, choices: Choices) -> list[bytes]:
    pieces, at = [], 0
    while at < len(sent):
        size = 1 + choices.below(64)
        pieces.append(sent[at : at + size])
        at += size
    return pieces


def _read(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """Return the frames, and whether something followed that is none."""
    reader, frames, fed = FrameReader(_SIZE_MAX), list[Frame](), 0
    for piece in pieces:
        reader.feed(piece)
        fed += len(piece)
        try:
            while (frame := reader.next()) is not None:
                frames.append(frame)
        except MalformedFrame:
            return frames, True
        assert reader.held_bytes == fed - sum(FRAME.size + len(each.payload) for each in frames)
    return frames, False


def _look_into(frame: Frame) -> None:
    try:
        sent, timeout_s = _sent(frame.payload)
    except Problem as problem:
        _check_refused(problem)
    else:
        assert sent.stream
        assert 0 < timeout_s <= 60
    try:
        assert _follow_head(frame.payload).credit > 0
    except Problem as problem:
        _check_refused(problem)
    with contextlib.suppress(MalformedFrame):
        assert frame.payload == credit_of(frame.payload).to_bytes(4, "little")


def _check_refused(problem: Problem) -> None:
    assert problem.code == "forbidden" or problem.facts["field"]


def _skip(sent: bytes, choices: Choices) -> None:
    """What follows a frame that was passed over is found."""
    payload = choices.binary(200)
    passed = FRAME.pack(5 + len(payload), 77, APPEND) + payload
    reader = FrameReader(_SIZE_MAX)
    there = passed[: choices.below(len(passed))]
    reader.feed(there)
    assert reader.next() is None
    assert reader.skip() == (77 if len(there) >= FRAME.size else None)
    for piece in _pieces(passed[len(there) :] + FRAME.pack(5, 78, APPEND), choices):
        reader.feed(piece)
    last = reader.next()
    if len(there) < FRAME.size:
        assert last == Frame(77, APPEND, payload)
        last = reader.next()
    assert last == Frame(78, APPEND, b"")
