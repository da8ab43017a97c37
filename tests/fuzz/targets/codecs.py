"""A compressed body: `storage.codec`."""

from __future__ import annotations

from cute_logger.storage.codec import CODEC_LZ4, CODEC_NONE, CODEC_ZSTD, pack, unpack
from cute_logger.storage.errors import CorruptBatch
from fuzz.choices import Choices, edited

_BYTES_MAX = 1 << 16
_MAGICS = {CODEC_ZSTD: b"\x28\xb5\x2f\xfd", CODEC_LZ4: b"\x04\x22\x4d\x18"}


def target(data: bytes) -> None:
    """Any bytes unpack to a bounded body or are corrupt; what was packed unpacks to itself."""
    choices = Choices(data)
    codec = choices.pick((CODEC_ZSTD, CODEC_LZ4))
    match choices.below(3):
        case 0:
            _check(codec, choices.rest())
        case 1:
            _check(codec, _MAGICS[codec] + choices.rest())
        case 2:
            plain = choices.binary(255) * choices.below(1 << 10)
            used, packed = pack(codec, plain)
            assert len(packed) <= len(plain)
            if len(plain) <= _BYTES_MAX:
                assert unpack(used, packed, _BYTES_MAX) == plain
            _check(codec, edited(bytes(packed), choices))


def _check(codec: int, packed: bytes) -> None:
    try:
        plain = bytes(unpack(codec, packed, _BYTES_MAX))
    except CorruptBatch:
        return
    assert len(plain) <= _BYTES_MAX
    again, repacked = pack(codec, plain)
    assert again == CODEC_NONE or unpack(again, repacked, len(plain)) == plain
