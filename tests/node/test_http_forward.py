from __future__ import annotations

import asyncio
import io
import json

import msgspec

RECORDS = "/v1/streams/orders/records"
ONE = {"records": [{"value": "a"}]}


async def test_a_follower_passes_appends_on_to_the_leader(cluster) -> None:
    leader, follower, _ = cluster
    await follower.create("orders")
    async with follower.http.post(follower.url(RECORDS), json=ONE) as response:
        receipt = await response.json()
        assert response.status == 200
        assert response.headers["Cute-Node"] == leader.config.id
    assert receipt["first_offset"] == 0
    assert (await leader.read("orders"))["high_watermark"] == 1


async def test_msgpack_is_passed_on_as_it_is(cluster) -> None:
    _, follower, _ = cluster
    await follower.create("orders")
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    body = msgspec.msgpack.encode({"records": [{"value": b"\xff"}]})
    async with follower.http.post(follower.url(RECORDS), data=body, headers=headers) as response:
        assert msgspec.msgpack.decode(await response.read())["count"] == 1


async def test_a_large_body_is_passed_on_whole(cluster) -> None:
    leader, follower, _ = cluster
    await follower.create("orders")
    body = json.dumps({"records": [{"value": "x" * 1_000_000}] * 4}).encode()
    headers = {"Content-Type": "application/json"}
    await follower.call("POST", RECORDS, status=200, data=io.BytesIO(body), headers=headers)
    assert (await leader.read("orders", max_bytes=8 << 20))["high_watermark"] == 4


async def test_the_idempotency_key_goes_with_the_request(cluster) -> None:
    _, first, second = cluster
    await first.create("orders")
    key = {"Idempotency-Key": "order-7"}
    receipt = await first.append("orders", "a", headers=key)
    assert await second.append("orders", "a", headers=key) == receipt | {"duplicate": True}


async def test_a_refusal_of_the_leader_comes_back_as_it_is(cluster) -> None:
    _, follower, _ = cluster
    await follower.refused("POST", RECORDS, "unknown_stream", json=ONE)
    problem = await follower.refused("POST", RECORDS, "invalid_request", json={"records": []})
    assert problem["field"] == "records"


async def test_any_node_takes_every_write(cluster) -> None:
    _, follower, _ = cluster
    await follower.create("orders")
    await follower.call("POST", "/v1/producers", status=200, json={})
    await follower.call("DELETE", "/v1/streams/orders", status=204)


async def test_redirect_names_the_leaders_address_with_path_and_query(cluster) -> None:
    leader, follower, _ = cluster
    async with follower.http.post(
        follower.url(f"{RECORDS}?timeout_ms=500&redirect=1"), json=ONE, allow_redirects=False
    ) as response:
        assert response.status == 307
        assert response.headers["Location"] == f"{leader.config.http_url}{RECORDS}?timeout_ms=500"


async def test_a_redirect_can_be_followed(cluster) -> None:
    _, follower, _ = cluster
    await follower.create("orders")
    answer = await follower.call("POST", f"{RECORDS}?redirect=1", status=200, json=ONE)
    assert answer["count"] == 1


async def test_a_request_is_passed_on_once_only(cluster) -> None:
    _, follower, _ = cluster
    await follower.refused("POST", RECORDS, "no_leader", json=ONE, headers={"Cute-Forwarded": "n9"})


async def test_the_systems_streams_are_refused_without_asking_the_leader(cluster) -> None:
    _, follower, _ = cluster
    problem = await follower.refused("PUT", "/v1/streams/_offsets", "forbidden")
    assert problem["status"] == 403


async def test_a_leader_that_cannot_be_reached_means_refused(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    await leader.server.close()

    problem = await follower.refused("POST", RECORDS, "no_leader", json=ONE)

    assert problem["leader"] == leader.config.id
    assert leader.replica.stream("orders").high_watermark == 0


async def test_an_answer_that_is_lost_means_unknown_and_nothing_is_sent_twice(cluster) -> None:
    leader, follower, _ = cluster
    await leader.server.close()
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(hang_up, *leader.config.http)
    async with server:
        await follower.refused("POST", RECORDS, "outcome_unknown", json=ONE)
        await follower.refused("DELETE", "/v1/streams/orders", "outcome_unknown")
        await follower.refused("PUT", "/v1/streams/orders", "outcome_unknown")

    assert [request.split(b" ")[0] for request in heard] == [b"POST", b"DELETE", b"PUT"]


async def test_a_leader_that_hangs_is_waited_for_until_another_leads(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    await leader.server.close()
    heard = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, *leader.config.http):
        path = f"{RECORDS}?timeout_ms=60000"
        asking = asyncio.create_task(follower.refused("POST", path, "outcome_unknown", json=ONE))
        await heard.wait()
        assert not asking.done()
        await leader.replica.stop()
        async with asyncio.timeout(5):
            await asking


async def test_an_append_waits_for_the_next_leader(cluster) -> None:
    leader, follower, other = cluster
    await leader.create("orders")
    await leader.replica.stop()
    leader.context.replica = None

    async with asyncio.timeout(10):
        while (await attempt(follower)) != 200:
            pass

    assert (await other.read("orders", consistency="linearizable"))["high_watermark"] >= 1


async def attempt(node) -> int:
    async with node.http.post(node.url(RECORDS), json=ONE) as response:
        assert response.status in (200, 503), await response.text()
        return response.status


async def test_a_linearizable_read_on_a_follower_shows_what_was_acknowledged(cluster) -> None:
    leader, *followers = cluster
    await leader.create("orders")
    for count in range(1, 6):
        await leader.append("orders", "a")
        for follower in followers:
            page = await follower.read("orders", consistency="linearizable")
            assert page["high_watermark"] == count


async def test_a_session_token_makes_a_follower_wait_for_it(cluster) -> None:
    leader, *followers = cluster
    await leader.create("orders")
    for count in range(1, 6):
        receipt = await leader.append("orders", "a")
        for follower in followers:
            page = await follower.read("orders", after=receipt["index"])
            assert page["high_watermark"] >= count
            assert page["index"] >= receipt["index"]


async def test_a_stream_made_elsewhere_a_moment_ago_is_not_denied(cluster) -> None:
    leader, *followers = cluster
    for number in range(5):
        await leader.create(f"s{number}")
        for follower in followers:
            await follower.call("GET", f"/v1/streams/s{number}", status=200)


async def test_a_follower_knows_what_became_of_a_key(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    receipt = await leader.append("orders", "a", headers={"Idempotency-Key": "order-7"})
    found = await follower.call("GET", "/v1/streams/orders/idempotency/order-7", status=200)
    assert found["first_offset"] == receipt["first_offset"]


async def test_a_follower_behind_its_bound_says_too_stale(cluster) -> None:
    leader, follower, _ = cluster
    await leader.create("orders")
    query = {"consistency": "bounded", "max_lag_ms": 0}
    async with asyncio.timeout(5):
        while True:
            async with follower.http.get(follower.url(RECORDS), params=query) as response:
                problem = await response.json(content_type=None)
                if response.status == 503:
                    break
    assert problem["code"] == "too_stale"
    assert problem["lag_ms"] > problem["max_lag_ms"]


async def test_leadership_moves_by_a_request_to_any_node(cluster) -> None:
    _, follower, other = cluster
    answer = await other.call(
        "POST", "/v1/cluster/leader", status=200, json={"node": follower.config.id}
    )
    assert answer == {"leader": follower.config.id}


async def hand_over(node, target: str) -> None:
    """Ask `node` until `target` leads; while leadership moves, a 503 is an honest answer."""
    status = 503
    async with asyncio.timeout(30):
        while status == 503:
            url = node.url("/v1/cluster/leader")
            async with node.http.post(url, json={"node": target}) as response:
                status, text = response.status, await response.text()
    assert status == 200, text


async def test_appends_while_leadership_moves_are_acknowledged_or_honestly_not(cluster) -> None:
    leader, follower, other = cluster
    await leader.create("orders")
    statuses: list[int] = []

    async def keep_appending(node) -> None:
        for _ in range(40):
            async with node.http.post(node.url(RECORDS), json=ONE) as response:
                statuses.append(response.status)

    writers = asyncio.gather(*(keep_appending(node) for node in cluster for _ in range(4)))
    for target in (follower, other, leader):
        await hand_over(other, target.config.id)
    await writers

    assert set(statuses) <= {200, 503, 504}
    written = (await other.read("orders", consistency="linearizable"))["high_watermark"]
    assert statuses.count(200) <= written <= statuses.count(200) + statuses.count(504)


async def test_every_node_lists_all_nodes_with_their_addresses(cluster) -> None:
    for node in cluster:
        status = await node.call("GET", "/v1/cluster", status=200)
        listed = {member["id"]: member["http"] for member in status["nodes"]}
        known = {other.config.id: other.config.http_url for other in cluster}
        assert {name: url for name, url in listed.items() if url} == {
            name: known[name] for name, url in listed.items() if url
        }
        assert listed.keys() == known.keys()
