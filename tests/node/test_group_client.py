"""The client's calls for groups and transactions, at a real node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cute_logger.client import (
    AsyncClient,
    Client,
    ConditionFailed,
    IdempotencyConflict,
    LeaseLost,
    OutcomeUnknown,
    TxAppend,
    TxCommit,
    UnknownGroup,
    UnknownStream,
)
from support.lossy_proxy import LossyProxy


@pytest.fixture
async def log(node) -> AsyncIterator[AsyncClient]:
    """A client of a node that has three orders and no invoice."""
    async with AsyncClient([node.config.http_url]) as log:
        await log.create_stream("orders")
        await log.create_stream("invoices")
        await log.produce("orders", [b"a", b"b", b"c"])
        yield log


async def test_a_consumer_goes_on_where_the_last_one_committed(log: AsyncClient) -> None:
    assert await log.committed_offset("billing", "orders") is None
    with pytest.raises(UnknownGroup):
        await log.group("billing")
    receipt = await log.commit_offset("billing", "orders", 2)
    assert (receipt.offset, receipt.lag) == (2, 1)
    assert log.session_token >= receipt.index
    for consistency in ("local", "linearizable"):
        found = await log.committed_offset("billing", "orders", consistency=consistency)
        assert found == 2
    with pytest.raises(UnknownStream):
        await log.committed_offset("billing", "nowhere")
    (group,) = await log.groups()
    assert (group.name, group.streams[0].lag, group.streams[0].lease) == ("billing", 1, None)
    await log.delete_group("billing")
    assert await log.groups() == []


async def test_a_lease_belongs_to_one_client(node, log: AsyncClient) -> None:
    lease = await log.lease("billing", "orders")
    assert (lease.offset, lease.expires_in_ms) == (None, 30_000)
    assert (await log.lease("billing", "orders", ttl_ms=60_000)).number == lease.number
    async with AsyncClient([node.config.http_url]) as other:
        with pytest.raises(LeaseLost) as lost:
            await other.lease("billing", "orders")
        assert lost.value.facts["member"] == log.member
        with pytest.raises(LeaseLost):
            await other.commit_offset("billing", "orders", 1)
        await log.commit_offset("billing", "orders", 1, lease=lease)
        assert (await log.group("billing")).streams[0].lease.member == log.member
        await log.release_lease(lease)
        taken = await other.lease("billing", "orders")
        assert (taken.offset, taken.number > lease.number) == (1, True)
    with pytest.raises(LeaseLost):
        await log.commit_offset("billing", "orders", 2, lease=lease)
    with pytest.raises(LeaseLost):
        await log.release_lease(lease)


async def test_read_write_and_commit_happen_together(log: AsyncClient) -> None:
    lease = await log.lease("billing", "orders")
    done = await log.transact(
        [TxAppend("invoices", [b"\xff", "for b"], if_offset=0), TxAppend("orders", "d")],
        [TxCommit("billing", "orders", 2, lease)],
    )
    assert [receipt.first_offset for receipt in done.appends] == [0, 3]
    assert (done.commits[0].offset, done.commits[0].lag, done.duplicate) == (2, 2, False)
    assert [record.value for record in await log.read("invoices")] == [b"\xff", b"for b"]

    with pytest.raises(ConditionFailed) as failed:
        await log.transact([TxAppend("orders", "e"), TxAppend("invoices", "x", if_offset=0)])
    assert (failed.value.facts["part"], failed.value.facts["part_index"]) == ("appends", 1)
    assert (await log.stream("orders")).high_watermark == 4


async def test_a_key_of_ones_own_makes_repeats_safe(log: AsyncClient) -> None:
    appends = [TxAppend("invoices", "x")]
    first = await log.transact(appends, idempotency_key="k")
    again = await log.transact(appends, idempotency_key="k")
    assert (again.duplicate, again.index) == (True, first.index)
    with pytest.raises(IdempotencyConflict):
        await log.transact([TxAppend("invoices", "y")], idempotency_key="k")


async def test_a_lost_answer_leads_to_the_first_receipts(node, log: AsyncClient) -> None:
    async with (
        LossyProxy(node.config.http, b"POST /v1/tx", lose=2) as proxy,
        AsyncClient([proxy.url]) as far,
    ):
        done = await far.transact([TxAppend("invoices", "x", if_offset=0)])
        assert (done.appends[0].first_offset, done.duplicate) == (0, True)
    assert (await log.stream("invoices")).high_watermark == 1


async def test_a_lost_answer_to_a_commit_is_asked_for_again(node, log: AsyncClient) -> None:
    lease = await log.lease("billing", "orders")
    async with (
        LossyProxy(node.config.http, b"PUT /v1/groups", lose=2) as proxy,
        AsyncClient([proxy.url]) as far,
    ):
        assert (await far.commit_offset("billing", "orders", 2, lease=lease)).offset == 2


async def test_after_a_lost_answer_a_refused_commit_is_unknown(node, log: AsyncClient) -> None:
    """It was done; then the lease ended before it was asked for again."""
    lease = await log.lease("billing", "orders")
    async with (
        LossyProxy(
            node.config.http, b"PUT /v1/groups", lose=1, meanwhile=lambda: log.release_lease(lease)
        ) as proxy,
        AsyncClient([proxy.url]) as far,
    ):
        with pytest.raises(OutcomeUnknown) as unknown:
            await far.commit_offset("billing", "orders", 2, lease=lease)
    assert unknown.value.facts["last_code"] == "lease_lost"
    assert await log.committed_offset("billing", "orders") == 2


async def test_a_transaction_that_lost_its_lease_is_refused_for_good(
    node, log: AsyncClient
) -> None:
    """Its key says that the attempt without an answer was not carried out, and it never will be."""
    lease = await log.lease("billing", "orders")
    await log.release_lease(lease)
    async with (
        LossyProxy(node.config.http, b"POST /v1/tx", lose=1) as proxy,
        AsyncClient([proxy.url]) as far,
    ):
        with pytest.raises(LeaseLost):
            await far.transact(
                [TxAppend("invoices", "x")], [TxCommit("billing", "orders", 2, lease)]
            )


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda log: log.commit_offset("No", "s", 1), ValueError),
        (lambda log: log.commit_offset("g", "s", "1"), TypeError),
        (lambda log: log.commit_offset("g", "s", -1), ValueError),
        (lambda log: log.commit_offset("g", "s", 1, lease="x"), TypeError),
        (lambda log: log.committed_offset("g", "s", consistency="any"), ValueError),
        (lambda log: log.lease("g", "s", member=7), TypeError),
        (lambda log: log.lease("g", "s", member=""), ValueError),
        (lambda log: log.lease("g", "s", ttl_ms=0), ValueError),
        (lambda log: log.transact(), ValueError),
        (lambda log: log.transact([TxAppend("s", [])]), ValueError),
        (lambda log: log.transact([TxAppend("s", 7)]), TypeError),
        (lambda log: log.transact([], [TxCommit("g", "s", 0)], idempotency_key=" "), ValueError),
    ],
)
async def test_arguments_are_checked_before_anything_is_sent(call: Any, error: type) -> None:
    async with AsyncClient(["http://127.0.0.1:9"]) as log:
        with pytest.raises(error):
            await call(log)


async def test_the_synchronous_client_does_the_same(node, log: AsyncClient) -> None:
    def work() -> None:
        with Client([node.config.http_url]) as client:
            lease = client.lease("billing", "orders", member="m1", ttl_ms=60_000)
            client.commit_offset("billing", "orders", 1, lease=lease)
            done = client.transact(
                [TxAppend("invoices", "x")], [TxCommit("billing", "orders", 2, lease)]
            )
            assert done.commits[0].offset == client.committed_offset("billing", "orders") == 2
            assert [group.name for group in client.groups()] == ["billing"]
            client.release_lease(lease)
            assert client.group("billing").streams[0].lease is None
            client.delete_group("billing")

    await asyncio.to_thread(work)
