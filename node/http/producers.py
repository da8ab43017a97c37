"""Producers: an id and an epoch for appends that happen at most once."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from .answers import answer
from .bodies import Form, read_struct
from .context import context_of
from .queries import WriteQuery


class ProducerBody(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET


_FORM = Form.same(ProducerBody)


async def register(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/producers; on the leader."""
    body = await read_struct(request, _FORM, empty=ProducerBody())
    producer_id, epoch = (
        await context_of(request)
        .live_replica()
        .register_producer(
            None if isinstance(body.name, UnsetType) else body.name,
            timeout_s=query.timeout_ms / 1000,
        )
    )
    return answer(request, {"id": producer_id, "epoch": epoch})
