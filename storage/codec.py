"""How the body of a batch is packed: as it is, as one zstd frame, or as one lz4 frame.

- A packed body is exactly one frame: a second one, or a byte behind it, is corrupt.
- Unpacking yields a stated number of bytes at most, whatever a frame claims, and takes memory by
  what it yields: 8 KB of zstd can stand for 256 MB.
- A zstd frame that needs a window of more than 8 MiB is corrupt; no level below 20 asks for one.

Both libraries give up the GIL while they work. They are imported when a batch first needs them.
"""

from __future__ import annotations

import sys
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from .errors import CorruptBatch, UnpacksTooLarge
from .filesystem import Buffer

CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1
CODEC_LZ4: Final = 2
CODECS: Final = MappingProxyType({"none": CODEC_NONE, "zstd": CODEC_ZSTD, "lz4": CODEC_LZ4})
"""By the names that settings and people use."""

ZSTD_LEVEL: Final = 3
ZSTD_WINDOW_LOG_MAX: Final = 23
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
"""Of an ordinary frame: there are skippable ones, and those of older formats."""
_LZ4_RATIO_MAX: Final = 255
_TINY_BYTES: Final = 64
_GAIN: Final = 16
"""What shrinks by less than one part in so many is not worth the unpacking."""


def codec_name(codec: int) -> str:
    """Return the name of `codec`, a number as text if this version does not know it."""
    return next((name for name, known in CODECS.items() if known == codec), str(codec))


def pack(codec: int, body: bytes) -> tuple[int, bytes]:
    """Return `body` packed and the codec that says how: CODEC_NONE if packing does not pay."""
    if codec == CODEC_NONE or len(body) < _TINY_BYTES:
        return CODEC_NONE, body
    packed: bytes = (
        _zstd().compress(body, ZSTD_LEVEL) if codec == CODEC_ZSTD else _lz4().compress(body)
    )
    if len(packed) > len(body) - len(body) // _GAIN:
        return CODEC_NONE, body
    return codec, packed


def unpack(codec: int, body: Buffer, bytes_max: int) -> Buffer:
    """Return what was packed, `bytes_max` at most; what was not packed is `body` itself.

    Raises UnpacksTooLarge, and CorruptBatch for anything but one whole frame of a known codec.
    """
    if codec == CODEC_NONE:
        if len(body) > bytes_max:
            raise UnpacksTooLarge(None, 0, f"a body of more than {bytes_max} bytes")
        return body
    if codec == CODEC_ZSTD:
        return _from_zstd(body, bytes_max)
    if codec == CODEC_LZ4:
        return _from_lz4(body, bytes_max)
    raise CorruptBatch(None, 0, f"unknown codec {codec}")


def _from_zstd(body: Buffer, bytes_max: int) -> bytes:
    zstd = _zstd()
    if bytes(body[:4]) != _ZSTD_MAGIC:
        raise CorruptBatch(None, 0, "zstd: no frame")
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
    decompressor = zstd.ZstdDecompressor(options=options)
    try:
        plain: bytes = decompressor.decompress(body, bytes_max + 1)
    except zstd.ZstdError as error:
        raise CorruptBatch(None, 0, f"zstd: {error}") from error
    return _checked(plain, decompressor, bytes_max)


def _from_lz4(body: Buffer, bytes_max: int) -> bytes:
    if bytes(body[:4]) != _LZ4_MAGIC:
        raise CorruptBatch(None, 0, "lz4: no frame")
    decompressor = _lz4().LZ4FrameDecompressor()
    # It allocates what it may yield.
    yield_max = min(bytes_max + 1, _LZ4_RATIO_MAX * len(body))
    try:
        plain: bytes = decompressor.decompress(body, yield_max)
    except RuntimeError as error:
        raise CorruptBatch(None, 0, f"lz4: {error}") from error
    return _checked(plain, decompressor, bytes_max)


def _checked(plain: bytes, decompressor: Any, bytes_max: int) -> bytes:
    if len(plain) > bytes_max:
        raise UnpacksTooLarge(None, 0, f"unpacks to more than {bytes_max} bytes")
    if not decompressor.eof:
        raise CorruptBatch(None, 0, "its frame ends early")
    if decompressor.unused_data:
        raise CorruptBatch(None, 0, "something follows its frame")
    return plain


@cache
def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


@cache
def _lz4() -> Any:
    import lz4.frame  # type: ignore[import-untyped]  # it ships no types

    return lz4.frame
