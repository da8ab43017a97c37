from __future__ import annotations

import asyncio

import pytest

GROUP = "/v1/groups/billing"
OFFSET = f"{GROUP}/streams/orders/offset"
LEASE = f"{GROUP}/streams/orders/lease"


@pytest.fixture
async def orders(node):
    """A node with five records in `orders`."""
    await node.create("orders")
    await node.append("orders", "a", "b", "c", "d", "e")
    return node


async def commit(node, offset: int, lease: int | None = None) -> dict[str, object]:
    body = {"offset": offset} if lease is None else {"offset": offset, "lease": lease}
    return await node.call("PUT", OFFSET, status=200, json=body)


async def test_a_committed_offset_is_read_back_with_its_lag(orders) -> None:
    receipt = await commit(orders, 2)
    assert receipt == {
        "group": "billing",
        "stream": "orders",
        "offset": 2,
        "high_watermark": 5,
        "lag": 3,
        "term": receipt["term"],
        "index": orders.replica.applied_index,
    }
    for level in ("local", "linearizable"):
        found = await orders.call("GET", OFFSET, status=200, params={"consistency": level})
        assert (found["offset"], found["lag"], found["lease"]) == (2, 3, None)
        assert found["index"] >= receipt["index"]
        assert found["committed_at"] > 1_600_000_000_000
    after = {"after": receipt["index"]}
    assert (await orders.call("GET", OFFSET, status=200, params=after))["offset"] == 2


async def test_groups_are_listed_with_their_streams(orders) -> None:
    assert await orders.call("GET", "/v1/groups", status=200) == {"groups": []}
    await orders.create("audit")
    await commit(orders, 2)
    await orders.call("PUT", f"{GROUP}/streams/audit/offset", status=200, json={"offset": 0})
    lease = {"member": "m1", "ttl_ms": 60_000}
    await orders.call("POST", LEASE, status=200, json=lease)

    group = await orders.call("GET", GROUP, status=200)
    assert group["name"] == "billing"
    audit, found = group["streams"]
    assert (audit["stream"], audit["lease"]) == ("audit", None)
    assert (found["stream"], found["offset"], found["lag"]) == ("orders", 2, 3)
    assert found["lease"]["member"] == "m1"
    assert 0 < found["lease"]["expires_in_ms"] <= 60_000
    listed = await orders.call("GET", "/v1/groups", status=200)
    assert [each["name"] for each in listed["groups"]] == ["billing"]


async def test_what_is_unknown_is_named(orders) -> None:
    await orders.refused("GET", OFFSET, "unknown_group")
    await orders.refused("GET", GROUP, "unknown_group")
    await orders.refused("DELETE", GROUP, "unknown_group")
    nowhere = f"{GROUP}/streams/nowhere"
    await orders.refused("GET", f"{nowhere}/offset", "unknown_stream")
    await orders.refused("PUT", f"{nowhere}/offset", "unknown_stream", json={"offset": 0})
    await orders.refused("POST", f"{nowhere}/lease", "unknown_stream", json={"member": "m1"})
    await orders.refused("DELETE", f"{nowhere}/lease", "unknown_stream", json={"member": "m1"})


async def test_a_stream_the_group_has_not_committed_has_no_offset(orders) -> None:
    await orders.create("audit")
    await commit(orders, 2)
    found = await orders.call("GET", f"{GROUP}/streams/audit/offset", status=200)
    assert (found["offset"], found["committed_at"], found["lag"]) == (None, None, 0)


async def test_nothing_beyond_the_end_is_committed(orders) -> None:
    problem = await orders.refused("PUT", OFFSET, "beyond_high_watermark", json={"offset": 6})
    assert problem["high_watermark"] == 5


async def test_a_committed_offset_outlives_a_trim_and_a_restart(orders) -> None:
    await commit(orders, 2)
    await orders.call("POST", "/v1/streams/orders/trim", status=200, json={"before": 4})
    await orders.restart()
    found = await orders.call("GET", OFFSET, status=200)
    assert (found["offset"], found["log_start_offset"], found["lag"]) == (2, 4, 3)


async def test_an_offset_goes_with_its_stream(orders) -> None:
    await commit(orders, 2)
    await orders.call("DELETE", "/v1/streams/orders", status=204)
    await orders.create("orders")
    await orders.refused("GET", OFFSET, "unknown_group")


async def test_a_lease_fences_older_holders(orders) -> None:
    await commit(orders, 1)
    first = await orders.call("POST", LEASE, status=200, json={"member": "m1", "ttl_ms": 150})
    assert (first["expires_in_ms"], first["offset"]) == (150, 1)
    problem = await orders.refused("POST", LEASE, "lease_lost", json={"member": "m2"})
    assert problem["member"] == "m1"
    assert 0 < problem["expires_in_ms"] <= 150
    await orders.refused("PUT", OFFSET, "lease_lost", json={"offset": 2})
    await commit(orders, 2, first["lease"])

    second = await take_over(orders, "m2")
    assert second["lease"] > first["lease"]
    assert (second["offset"], second["expires_in_ms"]) == (2, 30_000)
    stale = {"offset": 5, "lease": first["lease"]}
    await orders.refused("PUT", OFFSET, "lease_lost", json=stale)
    assert (await commit(orders, 3, second["lease"]))["lag"] == 2
    problem = await orders.refused(
        "PUT", OFFSET, "condition_failed", json={"offset": 2, "lease": second["lease"]}
    )
    assert problem["actual"] == 3


async def take_over(node, member: str) -> dict[str, int]:
    """Ask until the lease before has expired."""
    async with asyncio.timeout(10):
        while True:
            async with node.http.post(node.url(LEASE), json={"member": member}) as response:
                if response.status == 200:
                    return await response.json()


async def test_a_lease_is_renewed_and_given_back(orders) -> None:
    granted = await orders.call("POST", LEASE, status=200, json={"member": "m1"})
    renewed = await orders.call("POST", LEASE, status=200, json={"member": "m1", "ttl_ms": 1000})
    assert (renewed["lease"], renewed["expires_in_ms"]) == (granted["lease"], 1000)
    await orders.refused("DELETE", LEASE, "lease_lost", json={"member": "m2"})
    for _ in range(2):
        await orders.call("DELETE", LEASE, status=204, json={"lease": granted["lease"]})
    await orders.call("POST", LEASE, status=200, json={"member": "m2"})


async def test_a_group_is_deleted(orders) -> None:
    await commit(orders, 2)
    await orders.call("POST", LEASE, status=200, json={"member": "m1"})
    await orders.refused("DELETE", GROUP, "lease_lost")
    await orders.call("DELETE", LEASE, status=204, json={"member": "m1"})
    await orders.call("DELETE", GROUP, status=204)
    await orders.refused("GET", GROUP, "unknown_group")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", OFFSET, {}, "offset"),
        ("PUT", OFFSET, {"offset": -1}, "offset"),
        ("PUT", OFFSET, {"offset": "1"}, "offset"),
        ("PUT", OFFSET, {"offset": 1, "leese": 1}, "leese"),
        ("PUT", OFFSET, {"offset": 1, "lease": "x"}, "lease"),
        ("POST", LEASE, {"ttl_ms": 5}, "member"),
        ("POST", LEASE, {"member": ""}, "member"),
        ("POST", LEASE, {"member": "m" * 257}, "member"),
        ("POST", LEASE, {"member": "m", "ttl_ms": 0}, "ttl_ms"),
        ("POST", LEASE, {"member": "m", "ttl_ms": 86_400_001}, "ttl_ms"),
        ("DELETE", LEASE, {}, "lease"),
        ("PUT", "/v1/groups/No/streams/orders/offset", {"offset": 1}, "group"),
        ("PUT", "/v1/groups/g/streams/%2e%2e/offset", {"offset": 1}, "stream"),
    ],
)
async def test_what_is_wrong_is_named(node, method, path, body, field) -> None:
    problem = await node.refused(method, path, "invalid_request", json=body)
    assert problem["field"] == field


async def test_names_of_the_system_are_not_written(node) -> None:
    path = "/v1/groups/_g/streams/orders/offset"
    await node.refused("PUT", path, "forbidden", json={"offset": 1})


async def test_a_follower_passes_commits_and_leases_on_and_shows_them(cluster) -> None:
    leader, follower, other = cluster
    await leader.create("orders")
    await leader.append("orders", "a", "b")
    granted = await follower.call("POST", LEASE, status=200, json={"member": "m1"})
    receipt = await other.call(
        "PUT", OFFSET, status=200, json={"offset": 1, "lease": granted["lease"]}
    )
    for node in cluster:
        after = {"after": receipt["index"]}
        assert (await node.call("GET", OFFSET, status=200, params=after))["offset"] == 1
    await follower.refused("PUT", OFFSET, "lease_lost", json={"offset": 2})
    tx = {"appends": [{"stream": "orders", "records": [{"value": "c"}]}]}
    done = await follower.call("POST", "/v1/tx", status=200, json=tx)
    assert done["appends"][0]["first_offset"] == 2


async def test_a_group_made_elsewhere_a_moment_ago_is_not_denied(cluster) -> None:
    leader, *followers = cluster
    await leader.create("orders")
    for number in range(5):
        path = f"/v1/groups/g{number}"
        body = {"offset": 0}
        await leader.call("PUT", f"{path}/streams/orders/offset", status=200, json=body)
        for follower in followers:
            await follower.call("GET", path, status=200)


async def test_a_lease_outlives_its_leader(cluster) -> None:
    leader, follower, other = cluster
    await leader.create("orders")
    granted = await leader.call("POST", LEASE, status=200, json={"member": "m1"})
    await leader.replica.stop()
    leader.context.replica = None

    kept_out = await when_led(follower, "POST", LEASE, {"member": "m2"})
    assert kept_out["code"] == "lease_lost"
    body = {"offset": 0, "lease": granted["lease"]}
    assert (await when_led(other, "PUT", OFFSET, body))["offset"] == 0


async def when_led(node, method: str, path: str, body: dict[str, object]) -> dict[str, object]:
    """Ask until somebody leads."""
    async with asyncio.timeout(10):
        while True:
            async with node.http.request(method, node.url(path), json=body) as response:
                if response.status != 503:
                    return await response.json(content_type=None)
