"""What peers say: the body of a frame, `replication.messages`."""

from __future__ import annotations

import xxhash

from cute_logger.replication.messages import (
    FRAME_HEAD,
    BadFrame,
    Message,
    decode_message,
    encode_frame,
)
from fuzz.choices import Choices, flipped, packed, type_of

_MESSAGE = type_of(Message)


def target(data: bytes) -> None:
    choices = Choices(data)
    match choices.below(3):
        case 0:
            _check(choices.rest())
        case 1:
            _check(packed(choices, _MESSAGE))
        case 2:
            body = packed(choices, _MESSAGE)
            if body:
                _check_flip(body, choices.below(8 * len(body)))


def _check(body: bytes) -> None:
    """Whatever a body is, it is a message or a BadFrame; a message means the same sent on."""
    try:
        message = decode_message(memoryview(body), xxhash.xxh3_64_intdigest(body))
    except BadFrame:
        return
    head, again = encode_frame(message)
    size, digest = FRAME_HEAD.unpack(head)
    assert size == len(again)
    assert decode_message(memoryview(again), digest) == message


def _check_flip(body: bytes, bit: int) -> None:
    try:
        decode_message(memoryview(flipped(body, bit)), xxhash.xxh3_64_intdigest(body))
    except BadFrame:
        return
    raise AssertionError("a flipped bit was not noticed")
