"""Appends on condition, from the Python client."""

from __future__ import annotations

import pytest

from cute_logger.client import AsyncClient, ConditionFailed, NoMatch, Unchanged


async def test_a_key_changes_hands_once(node) -> None:
    async with AsyncClient([node.config.http_url]) as log:
        await log.create_stream("orders")
        first = await log.produce("orders", "a", key="c7", only_if=Unchanged("c7", -1))
        with pytest.raises(ConditionFailed) as caught:
            await log.produce("orders", "b", key="c7", only_if=Unchanged("c7", -1))
        assert caught.value.actual == first.first_offset
        since = Unchanged(b"c7", first.first_offset)
        await log.produce("orders", "b", key="c7", only_if=since, idempotency_key="once")
        again = await log.produce("orders", "b", key="c7", only_if=since, idempotency_key="once")
        assert again.duplicate


async def test_an_index_finds_nothing_new(node) -> None:
    async with AsyncClient([node.config.http_url]) as log:
        await log.create_stream("orders")
        await log.create_index("orders", "user", on="value:/user")
        nobody = NoMatch("user", "ann", -1)
        await log.produce("orders", '{"user": "ann"}', only_if=nobody)
        with pytest.raises(ConditionFailed):
            await log.produce("orders", '{"user": "ann"}', only_if=nobody)
        bob = NoMatch("user", "bob", -1)
        with pytest.raises(ConditionFailed):
            await log.produce("orders", '{"user": "bob"}', if_offset=0, only_if=bob)


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        (Unchanged(3, 0), TypeError),
        (Unchanged("a", "b"), TypeError),
        (Unchanged("a", -2), ValueError),
        (NoMatch("user", b"x", 0), TypeError),
        (NoMatch("No", "x", 0), ValueError),
        ({"key": "a"}, TypeError),
    ],
)
async def test_bad_conditions_are_refused_before_anything_is_sent(condition, error) -> None:
    async with AsyncClient(["http://127.0.0.1:1"]) as log:
        with pytest.raises(error):
            await log.produce("orders", "a", only_if=condition)
