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
    codec = CODEC_NONE if append.codec != CODEC_NONE else _codec_of(context, append.stream)
    if codec == CODEC_NONE:
        return append
    body = append.body
    if len(body) > INLINE_BYTES_MAX:
        used, packed = await asyncio.to_thread(pack, codec, body)
    else:
        used, packed = pack(codec, body)
    if used == CODEC_NONE:
        return append
    digest = body_digest(body) if append.digest is None else append.digest
    return replace(append, body=packed, codec=used, digest=digest)


def _codec_of(context: Context, stream: str) -> int:
    """What the stream's setting says; what this version does not know, and no stream, is none."""
    try:
        config = context.live_replica().stream(stream).config
    except UnknownStream:
        return CODEC_NONE
    return CODECS.get(str(config.get("compression.type")), CODEC_NONE)
