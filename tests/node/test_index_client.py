"""The client's calls for indexes, at a real node."""

from __future__ import annotations

import asyncio
import json

import pytest

from cute_logger.client import (
    AsyncClient,
    Client,
    InvalidRequest,
    OffsetTrimmed,
    Record,
    UnknownIndex,
    UnknownKey,
    UnknownStream,
)

USERS = ["ann", "bob", "ann", "eve", "bob", "ann"]


async def filled(log: AsyncClient) -> None:
    await log.create_stream("orders")
    await log.produce(
        "orders",
        [
            Record(json.dumps({"user": user, "price": number}).encode(), key=user.encode())
            for number, user in enumerate(USERS)
        ],
    )


async def test_indexes_are_made_searched_and_dropped(node) -> None:
    async with AsyncClient([node.config.http_url]) as log:
        await filled(log)
        made = await log.create_index("orders", "by-user", "value:/user")
        assert (made.name, made.kind, made.on) == ("by-user", "btree", "value:/user")
        await log.create_index("orders", "by-price", "value:/price")
        await log.create_index("orders", "few", "key", kind="bloom")
        assert [each.name for each in await log.indexes("orders")] == ["by-price", "by-user", "few"]
        assert (await log.index("orders", "few")).kind == "bloom"
        found = [
            record.offset async for record in log.search("orders", "by-user", eq="ann", limit=2)
        ]
        assert found == [0, 2, 5]
        found = [
            record.offset
            async for record in log.search("orders", "by-price", ge=1, lt=4.5, order="desc")
        ]
        assert found == [4, 3, 2, 1]
        page = await log.search_page("orders", "by-user", prefix="b", limit=1)
        assert (page.records[0].offset, page.high_watermark) == (1, 6)
        page = await log.search_page("orders", "by-user", prefix="b", cursor=page.cursor)
        assert [record.offset for record in page.records] == [4]
        await log.drop_index("orders", "by-user")
        with pytest.raises(UnknownIndex):
            await log.search_page("orders", "by-user", eq="ann")
        with pytest.raises(InvalidRequest):
            await log.search_page("orders", "by-price")
        with pytest.raises(UnknownStream):
            await log.create_index("nowhere", "a", "key")
        with pytest.raises(TypeError):
            await log.search_page("orders", "by-price", eq=[])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="kind"):
            await log.create_index("orders", "a", "key", kind="hash")


async def test_the_newest_record_of_a_key(node) -> None:
    async with AsyncClient([node.config.http_url]) as log:
        await filled(log)
        assert (await log.get("orders", "ann")).offset == 5
        assert (await log.get("orders", b"ann", as_of=4)).offset == 2
        await log.produce("orders", Record(None, key=b"ann"))
        with pytest.raises(UnknownKey):
            await log.get("orders", "ann")
        with pytest.raises(ValueError, match="key"):
            await log.get("orders", "")
        await log.produce("orders", b"v", key=b"\xff/ ")
        assert (await log.get("orders", b"\xff/ ")).value == b"v"
        await log.trim("orders", 3)
        with pytest.raises(OffsetTrimmed):
            await log.get("orders", "ann", as_of=2)


async def test_the_synchronous_client_does_the_same(node) -> None:
    def use() -> None:
        with Client([node.config.http_url]) as log:
            log.create_index("orders", "by-user", "value:/user")
            assert log.index("orders", "by-user") in log.indexes("orders")
            assert [each.offset for each in log.search("orders", "by-user", eq="bob")] == [1, 4]
            assert log.search_page("orders", "by-user", eq="eve").cursor is None
            assert log.get("orders", "eve").offset == 3
            log.drop_index("orders", "by-user")

    async with AsyncClient([node.config.http_url]) as log:
        await filled(log)
    await asyncio.to_thread(use)
