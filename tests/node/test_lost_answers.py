"""The client at a real node, when a connection breaks with the request carried out."""

from __future__ import annotations

from cute_logger.client import AsyncClient
from support.lossy_proxy import LossyProxy


async def test_a_deletion_whose_answer_was_lost_is_done(node) -> None:
    await node.create("orders")
    async with (
        LossyProxy(node.config.http, b"DELETE /v1/streams", lose=1) as proxy,
        AsyncClient([proxy.url]) as log,
    ):
        await log.streams()  # so that it deletes over a connection that was used before
        await log.delete_stream("orders")
        assert await log.streams() == []
