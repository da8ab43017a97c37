"""Bodies that arrive as they are, compressed as their stream wants them kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from ...replication.dedupe import body_digest
from ...replication.errors import UnknownStream
from ...replication.types import Append
from ...storage.codec import CODEC_NONE, CODECS, pack
from ..units import KiB
from .context import Context

INLINE_BYTES_MAX: Final = 256 * KiB
"""Larger bodies are compressed on another thread: zstd takes 2 ms and more for a MiB."""


async def compressed(context: Context, append: Append) -> Append:
    """Return `append` with its body as its stream's `compression.type` says, if that is smaller.

    What arrived compressed stays as it is: a stream may hold batches of several codecs.
    """
    if len(append.body) <= INLINE_BYTES_MAX:
        return compressed_inline(context, append)
    codec = _codec_for(context, append)
    if codec == CODEC_NONE:
        return append
    return _with_body(append, *await asyncio.to_thread(pack, codec, append.body))


def compressed_inline(context: Context, append: Append) -> Append:
    """Do the same on this thread."""
    codec = _codec_for(context, append)
    return append if codec == CODEC_NONE else _with_body(append, *pack(codec, append.body))


def _with_body(append: Append, codec: int, packed: bytes) -> Append:
    if codec == CODEC_NONE:
        return append
    digest = body_digest(append.body) if append.digest is None else append.digest
    return replace(append, body=packed, codec=codec, digest=digest)


def _codec_for(context: Context, append: Append) -> int:
    """What the stream's setting says; what this version does not know, and no stream, is none."""
    if append.codec != CODEC_NONE:
        return CODEC_NONE
    try:
        config = context.live_replica().stream_config(append.stream)
    except UnknownStream:
        return CODEC_NONE
    return CODECS.get(str(config.get("compression.type")), CODEC_NONE)
