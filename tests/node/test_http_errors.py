from __future__ import annotations

import asyncio
import json
import logging

import msgspec
import pytest

from cute_logger.node.http.app import NOT_BUILT

RECORDS = "/v1/streams/orders/records"
ONE = {"records": [{"value": "a"}]}


@pytest.fixture
async def alone(bare_node):
    """One of three nodes; the others never come."""
    await bare_node.recover()
    return bare_node


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/streams/orders/record", "/v1/streams/"])
async def test_an_address_nobody_has_is_not_found(node, path) -> None:
    await node.refused("GET", path, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/streams", "GET"),
        ("PATCH", "/livez", "GET, HEAD"),
        ("PUT", RECORDS, "GET, POST"),
        ("OPTIONS", "/v1/cluster", "GET"),
    ],
)
async def test_a_method_nobody_takes_names_those_that_are(node, method, path, allowed) -> None:
    async with node.http.request(method, node.url(path)) as response:
        assert response.status == 405
        assert response.headers["Allow"] == allowed
    await node.refused(method, path, "method_not_allowed")


@pytest.mark.parametrize(("method", "path"), NOT_BUILT)
async def test_what_the_contract_names_and_nobody_built_answers_501(node, method, path) -> None:
    concrete = path
    for name in ("stream", "key", "index", "group", "member"):
        concrete = concrete.replace(f"{{{name}:[^/]+}}", "a")
    problem = await node.refused(method, concrete, "not_implemented")
    assert problem["status"] == 501


async def test_any_other_accept_gets_json(node) -> None:
    for accept in ("text/html,*/*;q=0.8", "application/json", "application/msgpack;q=0"):
        answer = await node.call("GET", "/v1/streams", status=200, headers={"Accept": accept})
        assert answer == {"streams": []}


async def test_an_unknown_stream_is_404_for_reads(node) -> None:
    for path in (RECORDS, "/v1/streams/orders", "/v1/streams/orders/idempotency/k"):
        await node.refused("GET", path, "unknown_stream")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"]
)
async def test_a_body_of_another_type_is_refused(node, content_type) -> None:
    problem = await node.refused(
        "POST",
        RECORDS,
        "invalid_request",
        data=json.dumps(ONE),
        headers={"Content-Type": content_type},
    )
    assert problem["field"] == "Content-Type"
    assert "application/msgpack" in problem["detail"]


async def test_a_compressed_body_is_refused(node) -> None:
    problem = await node.refused(
        "POST", RECORDS, "invalid_request", data=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert problem["field"] == "Content-Encoding"


async def test_an_empty_body_is_no_append(node) -> None:
    problem = await node.refused("POST", RECORDS, "invalid_request", data=b"")
    assert problem["field"] == "body"


async def test_unknown_fields_and_parameters_of_every_write_are_refused(node) -> None:
    for method, path in (
        ("PUT", "/v1/streams/orders"),
        ("POST", "/v1/producers"),
        ("POST", "/v1/cluster/leader"),
    ):
        problem = await node.refused(method, path, "invalid_request", json={"nodes": 1})
        assert problem["field"] == "nodes"
        problem = await node.refused(method, f"{path}?timeout=1", "invalid_request")
        assert problem["nearest"] == "timeout_ms"


async def test_a_request_id_is_kept_if_it_is_decent(node) -> None:
    for given, kept in (("my-7", True), ("x" * 65, False), ("a b", False)):
        headers = {"Cute-Request-Id": given}
        async with node.http.get(node.url("/livez"), headers=headers) as response:
            assert (response.headers["Cute-Request-Id"] == given) is kept


async def test_a_recovering_node_is_alive_and_not_ready(bare_node) -> None:
    assert await bare_node.call("GET", "/livez", status=200) == {"status": "alive"}
    problem = await bare_node.refused("GET", "/readyz", "not_ready")
    assert problem["reason"] == "recovering"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/streams"),
        ("GET", RECORDS),
        ("POST", RECORDS),
        ("GET", "/v1/cluster"),
        ("PUT", "/v1/streams/orders"),
        ("GET", "/v1/streams/orders/idempotency/k"),
    ],
)
async def test_a_recovering_node_refuses_all_else(bare_node, method, path) -> None:
    problem = await bare_node.refused(method, path, "not_ready", json=ONE)
    assert problem["reason"] == "recovering"


async def test_without_a_leader_writes_are_refused_after_a_short_wait(alone) -> None:
    async with asyncio.timeout(4):
        await alone.refused("POST", RECORDS, "no_leader", json=ONE)
        await alone.refused("PUT", "/v1/streams/orders?timeout_ms=50", "no_leader")


async def test_without_a_leader_nothing_is_ready(alone) -> None:
    problem = await alone.refused("GET", "/readyz", "not_ready")
    assert problem["reason"] == "no_leader"
    await alone.refused("GET", RECORDS, "not_ready")


async def test_without_a_leader_the_cluster_can_be_looked_at(alone) -> None:
    status = await alone.call("GET", "/v1/cluster", status=200)
    assert status["leader"] is None
    assert [member["id"] for member in status["nodes"]] == ["n1", "n2", "n3"]


async def test_an_index_that_never_comes_is_not_caught_up(node, monkeypatch) -> None:
    monkeypatch.setattr("cute_logger.node.http.levels.LEVEL_TIMEOUT_S", 0.05)
    await node.create("orders")
    problem = await node.refused("GET", f"{RECORDS}?after=1000000", "not_caught_up")
    assert problem["applied_index"] < 1_000_000


async def test_a_page_that_is_damaged_on_disk_is_refused_and_logged(
    start_node, tmp_path, caplog
) -> None:
    node = await start_node()
    await node.create("orders")
    await node.append("orders", "precious")
    await node.restart()
    (store,) = tmp_path.glob("**/streams/*/*.log")
    store.write_bytes(store.read_bytes().replace(b"precious", b"prexious"))

    await node.refused("GET", RECORDS, "not_ready")

    (failure,) = (line for line in caplog.records if line.getMessage() == "request failed")
    assert failure.exc_info
    assert node.context.answers.taken == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /v1/streams/a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_a_problem_too(node, raw, caplog) -> None:
    status, headers, body = await talk(node, raw)
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert headers["cute-node"] == "n1"
    assert json.loads(body)["code"] == "invalid_request"
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def test_a_broken_chunk_is_refused(node) -> None:
    raw = (
        f"POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    status, _, body = await talk(node, raw.encode())
    assert status == 400
    assert json.loads(body)["code"] == "invalid_request"


async def test_expect_is_met_before_the_body_is_sent(node) -> None:
    await node.create("orders")
    body = json.dumps(ONE).encode()
    head = (
        f"POST {RECORDS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(*node.config.http)
    writer.write(head.encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_expectation_nobody_meets_is_refused(node) -> None:
    problem = await node.refused(
        "POST", RECORDS, "invalid_request", json=ONE, headers={"Expect": "tea"}
    )
    assert problem["field"] == "Expect"


async def test_errors_are_json_also_for_who_prefers_msgpack(node) -> None:
    headers = {"Accept": "application/msgpack"}
    async with node.http.get(node.url(RECORDS), headers=headers) as response:
        assert response.content_type == "application/problem+json"
        assert msgspec.json.decode(await response.read())["code"] == "unknown_stream"


async def talk(node, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are and return the answer's status, headers and body."""
    reader, writer = await asyncio.open_connection(*node.config.http)
    writer.write(raw)
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.strip().split("\r\n")
        headers = {name.lower(): text for name, _, text in (x.partition(": ") for x in lines[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    return int(lines[0].split()[1]), headers, body
