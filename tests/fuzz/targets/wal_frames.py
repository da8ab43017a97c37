"""The frames of the write-ahead log: `storage.wal_frame`."""

from __future__ import annotations

import struct

from crc32c import crc32c

from cute_logger.storage.wal_frame import (
    FRAME_HEADER_SIZE,
    Entry,
    Frame,
    FrameEncoder,
    FrameReader,
    Kind,
    find_voucher,
    frame_size,
)
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk

SEED = 0x5EED0001
_PATH = "/wal/frames"
_FIELDS = struct.Struct("<IIB3sQQQ")


def target(data: bytes) -> None:
    choices = Choices(data)
    match choices.below(4):
        case 0:
            _check_any(choices.rest())
        case 1:
            _check_any(b"".join(forged(choices) for _ in range(1 + choices.below(6))))
        case 2:
            _check_any(edited(_sound(choices)[0], choices))
        case 3:
            stream, starts = _sound(choices)
            _check_flip(stream, starts, choices.below(8 * len(stream)))


def forged(choices: Choices, seed: int = SEED) -> bytes:
    """Return a frame with any fields, its checksum right more often than not."""
    payload = choices.binary()
    size = len(payload) if choices.below(8) < 7 else choices.number() & 0xFFFFFFFF
    numbers = [choices.number() & (2**64 - 1) for _ in range(3)]
    seed = seed if choices.below(16) < 15 else choices.number() & 0xFFFFFFFF
    kind = choices.below(8)
    unsummed = _FIELDS.pack(size, seed, kind, choices.take(3), *numbers)
    crc = crc32c(payload, crc32c(unsummed)) ^ (choices.below(16) == 15)
    return (
        struct.pack("<I", crc) + unsummed + payload.ljust(-len(payload) % 8 + len(payload), b"\0")
    )


def _sound(choices: Choices) -> tuple[bytes, list[int]]:
    """Return frames as the log writes them, and where each begins."""
    encoder = FrameEncoder(SEED, position=0, vouched=choices.below(256))
    starts = []
    index = choices.below(256)
    for _ in range(1 + choices.below(6)):
        starts.append(encoder.position)
        kind = choices.pick((Kind.ENTRY, Kind.ENTRY, *Kind))
        encoder.add(kind, index, choices.below(3), choices.binary())
        index += 1
    return b"".join(encoder.buffers()), starts


def _read(disk: Disk) -> list[Frame]:
    reader = FrameReader(disk.open(_PATH), SEED, position=0)
    frames = []
    while (frame := reader.next()) is not None:
        frames.append(frame)
    return frames


def _check_any(stream: bytes) -> None:
    disk = Disk()
    disk.put(_PATH, stream)
    frames = _read(disk)
    position = 0
    for frame in frames:
        _check_same_bytes(stream, position, frame)
        position += frame_size(len(frame.payload))
    _check_bulk(disk, frames)
    voucher = find_voucher(disk.open(_PATH), SEED, position, len(stream))
    assert voucher is None or voucher > position


def _check_same_bytes(stream: bytes, position: int, frame: Frame) -> None:
    """What was read is what an encoder writes, but for what no checksum needs to cover."""
    encoder = FrameEncoder(SEED, position=position, vouched=frame.vouched)
    encoder.add(Kind(frame.kind), frame.index, frame.term, frame.payload)
    wanted = b"".join(encoder.buffers())[: FRAME_HEADER_SIZE + len(frame.payload)]
    found = bytearray(stream[position : position + len(wanted)])
    assert found[16:] == wanted[16:]
    assert found[4:13] == wanted[4:13]


def _check_bulk(disk: Disk, frames: list[Frame]) -> None:
    """Entries read many at a time are those read one by one."""
    reader = FrameReader(disk.open(_PATH), SEED, position=0)
    number = 0
    while number < len(frames):
        frame = frames[number]
        entries, locations = reader.next_entries(frame.index)
        for entry in entries:
            single = frames[number]
            assert entry == Entry(single.payload, single.index, single.term)
            number += 1
        assert bool(entries) == bool(locations) == (frame.kind == Kind.ENTRY)
        if not entries:
            assert reader.next() == frame
            number += 1


def _check_flip(stream: bytes, starts: list[int], bit: int) -> None:
    """A flipped bit ends the reading where it is; only padding may change."""
    disk = Disk()
    disk.put(_PATH, stream)
    before = _read(disk)
    disk.put(_PATH, flipped(stream, bit))
    after = _read(disk)
    hit = max(number for number, start in enumerate(starts) if start <= bit // 8)
    covered = FRAME_HEADER_SIZE + len(before[hit].payload)
    assert after == (before[:hit] if bit // 8 < starts[hit] + covered else before)
