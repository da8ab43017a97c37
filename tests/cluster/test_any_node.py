"""Every node answers every request."""

from __future__ import annotations

from support.processes import ProcessCluster, http


async def test_write_to_each_node_read_from_each_node(cluster: ProcessCluster) -> None:
    await cluster.leader()
    status, _, _ = await http("PUT", f"{cluster.url('n1')}/v1/streams/orders", json={})
    assert status == 201

    for number, name in enumerate(cluster.http):
        records = f"{cluster.url(name)}/v1/streams/orders/records"
        body = {"records": [{"key": "k", "value": f"from {name}"}]}
        status, receipt, headers = await http("POST", records, json=body)
        assert status == 200, receipt
        assert receipt["first_offset"] == number
        assert receipt["durability"] == "quorum"
        status, page, _ = await http("GET", records, params={"offset": str(number)})
        assert [record["value"] for record in page["records"]] == [f"from {name}"]

    last = receipt["index"]
    for name in cluster.http:
        records = f"{cluster.url(name)}/v1/streams/orders/records"
        for level in ({"after": str(last)}, {"consistency": "linearizable"}):
            status, page, headers = await http("GET", records, params=level)
            assert [record["offset"] for record in page["records"]] == [0, 1, 2]
            assert headers["Cute-Node"] == name
            assert int(headers["Cute-Index"]) >= last


async def test_a_follower_refuses_only_what_is_nowhere(cluster: ProcessCluster) -> None:
    leader = await cluster.leader()
    followers = [name for name in cluster.http if name != leader]
    for number in range(20):
        stream = f"{cluster.url(leader)}/v1/streams/s{number}"
        assert (await http("PUT", stream, json={}))[0] == 201
        await http("POST", f"{stream}/records", json={"records": [{"value": "a"}]})
        for name in followers:
            read = f"{cluster.url(name)}/v1/streams/s{number}/records"
            assert (await http("GET", read, params={"offset": "1"}))[0] == 200
            status, problem, _ = await http("GET", read, params={"offset": "2"})
            assert (status, problem["code"]) == (416, "beyond_high_watermark")
            assert problem["high_watermark"] == 1


async def test_a_follower_redirects_when_asked(cluster: ProcessCluster) -> None:
    leader = await cluster.leader()
    follower = next(name for name in cluster.http if name != leader)
    path = "/v1/streams/orders?redirect=1"
    status, _, headers = await http(
        "PUT", cluster.url(follower) + path, json={}, allow_redirects=False
    )
    assert status == 307
    assert headers["Location"] == f"{cluster.url(leader)}/v1/streams/orders"


async def test_without_a_majority_writes_are_refused_and_reads_go_on(
    cluster: ProcessCluster,
) -> None:
    leader = await cluster.leader()
    records = f"{cluster.url(leader)}/v1/streams/orders/records"
    await http("PUT", f"{cluster.url(leader)}/v1/streams/orders", json={})
    body = {"records": [{"value": "kept"}]}
    assert (await http("POST", records, json=body))[0] == 200

    cluster.kill(*(name for name in cluster.http if name != leader))
    codes = []
    for _ in range(20):
        status, problem, headers = await http(
            "POST", f"{records}?timeout_ms=3000", json={"records": [{"value": "late"}]}
        )
        codes.append((status, problem["code"], problem["side_effect"]))
        if status == 503:
            break
    assert codes[-1] == (503, "no_leader", "none")
    assert int(headers["Retry-After"]) >= 1
    assert set(codes[:-1]) <= {(504, "outcome_unknown", "maybe")}

    status, page, _ = await http("GET", records)
    assert (status, page["records"][0]["value"]) == (200, "kept")
    status, problem, _ = await http("GET", records, params={"consistency": "linearizable"})
    assert (status, problem["code"]) == (503, "no_leader")
    status, _, _ = await http("GET", f"{cluster.url(leader)}/readyz")
    assert status == 503
    assert (await http("GET", f"{cluster.url(leader)}/livez"))[0] == 200

    cluster.start(*(name for name in cluster.http if name != leader))
    await cluster.leader()
    assert (await http("POST", records, json=body))[0] == 200
