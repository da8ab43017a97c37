from __future__ import annotations

import pytest

NAMES_REFUSED = [
    "Orders",
    "-a",
    ".a",
    "a%20b",
    "a%2Fb",
    "%2e%2e",
    "a" * 129,
    "%C3%A4",
    "%7Bx%7D",
    "a%00",
]


async def test_a_new_stream_answers_201_and_its_whole_config(node) -> None:
    made = await node.call(
        "PUT", "/v1/streams/orders", status=201, json={"config": {"segment.bytes": "1MiB"}}
    )

    assert made["name"] == "orders"
    assert made["config"]["segment.bytes"] == 1 << 20
    assert made["config"]["retention.ms"] == -1
    assert made["high_watermark"] == made["log_start_offset"] == 0


async def test_a_body_of_no_bytes_means_all_defaults(node) -> None:
    made = await node.call("PUT", "/v1/streams/orders", status=201)
    assert made["config"]["max.message.bytes"] == 1 << 20


async def test_the_same_stream_again_answers_200(node) -> None:
    await node.create("orders", **{"max.message.bytes": 1000})
    await node.call(
        "PUT", "/v1/streams/orders", status=200, json={"config": {"max.message.bytes": "1000"}}
    )


async def test_another_config_answers_stream_exists(node) -> None:
    await node.create("orders")
    await node.refused(
        "PUT",
        "/v1/streams/orders",
        "stream_exists",
        json={"config": {"max.message.bytes": 1000}},
    )


@pytest.mark.parametrize("name", NAMES_REFUSED)
@pytest.mark.parametrize(
    ("method", "tail"), [("PUT", ""), ("GET", ""), ("DELETE", ""), ("GET", "/records")]
)
async def test_a_name_outside_of_the_pattern_is_refused(node, method, name, tail) -> None:
    problem = await node.refused(method, f"/v1/streams/{name}{tail}", "invalid_request")
    assert problem["field"] == "stream"


@pytest.mark.parametrize(("method", "tail"), [("PUT", ""), ("DELETE", ""), ("POST", "/records")])
async def test_the_systems_streams_are_not_for_clients(node, method, tail) -> None:
    await node.refused(method, f"/v1/streams/_offsets{tail}", "forbidden")


async def test_a_setting_that_is_not_built_is_refused_not_pretended(node) -> None:
    problem = await node.refused(
        "PUT", "/v1/streams/orders", "not_implemented", json={"config": {"durability": "relaxed"}}
    )
    assert (problem["status"], problem["field"]) == (501, "config.durability")
    assert "durability" in problem["detail"]
    assert "not built yet" in problem["detail"]
    await node.refused("GET", "/v1/streams/orders", "unknown_stream")


async def test_an_unknown_setting_names_the_nearest(node) -> None:
    problem = await node.refused(
        "PUT", "/v1/streams/orders", "invalid_request", json={"config": {"retention.mss": 1}}
    )
    assert "'retention.ms'" in problem["detail"]


async def test_a_stream_says_how_far_it_is(node) -> None:
    await node.create("orders")
    receipt = await node.append("orders", "a", "b")

    info = await node.call("GET", "/v1/streams/orders", status=200)

    assert set(info) == {
        "name",
        "config",
        "log_start_offset",
        "high_watermark",
        "bytes",
        "segments",
        "last_timestamp",
    }
    assert info["high_watermark"] == 2
    assert info["last_timestamp"] == receipt["timestamp"]
    assert info["bytes"] > 0


async def test_the_list_has_every_stream(node) -> None:
    await node.create("orders")
    await node.create("payments")
    listed = await node.call("GET", "/v1/streams", status=200)
    assert [info["name"] for info in listed["streams"]] == ["orders", "payments"]


async def test_a_deleted_stream_is_gone(node) -> None:
    await node.create("orders")
    assert await node.call("DELETE", "/v1/streams/orders", status=204) == {}

    await node.refused("GET", "/v1/streams/orders", "unknown_stream")
    await node.refused("GET", "/v1/streams/orders/records", "unknown_stream")
    await node.refused("DELETE", "/v1/streams/orders", "unknown_stream")


async def test_a_producer_name_fences_its_older_epochs(node) -> None:
    first = await node.call("POST", "/v1/producers", status=200, json={"name": "billing"})
    second = await node.call("POST", "/v1/producers", status=200, json={"name": "billing"})
    other = await node.call("POST", "/v1/producers", status=200)

    assert second == {"id": first["id"], "epoch": first["epoch"] + 1}
    assert other["id"] != first["id"]


async def test_the_cluster_says_who_leads(node) -> None:
    status = await node.call("GET", "/v1/cluster", status=200)

    assert status["node"] == status["leader"] == "n1"
    assert status["term"] >= 1
    assert status["applied_index"] <= status["commit_index"]
    assert [member["id"] for member in status["nodes"]] == ["n1"]
    assert status["nodes"][0]["state"] == "leader"
    assert status["nodes"][0]["http"] == node.config.http_url


async def test_leadership_goes_to_known_nodes_only(node) -> None:
    problem = await node.refused(
        "POST", "/v1/cluster/leader", "invalid_request", json={"node": "n2"}
    )
    assert "'n1'" in problem["detail"]
    answer = await node.call("POST", "/v1/cluster/leader", status=200, json={"node": "n1"})
    assert answer == {"leader": "n1"}


async def test_a_node_that_leads_is_alive_and_ready(node) -> None:
    assert await node.call("GET", "/livez", status=200) == {"status": "alive"}
    assert await node.call("GET", "/readyz", status=200) == {"status": "ready"}
    await node.call("HEAD", "/readyz", status=200)
