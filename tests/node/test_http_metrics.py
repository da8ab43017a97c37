"""What a scrape tells: in a format Prometheus reads, true, and bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cute_logger.node.http.app import ROUTES
from cute_logger.replication import scrub
from cute_logger.replication.compaction import pass_over
from cute_logger.replication.measures import Durations

RECORDS = "/v1/streams/orders/records"
README = Path(__file__).parents[2] / "deploy" / "README.md"


class Scrape:
    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        assert len({family.name for family in families}) == len(families)
        samples = [sample for family in families for sample in family.samples]
        self._values = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
        assert len(self._values) == len(samples), "a sample is there twice"
        self.labels = [s.labels for s in samples]
        self.names = {s.name for s in samples}

    def value(self, name: str, **labels: str) -> float:
        return self._values[name, frozenset(labels.items())]

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))


async def scrape(node) -> Scrape:
    async with node.http.get(node.url("/metrics")) as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert response.headers["Cute-Node"] == node.config.id
        return Scrape(await response.text())


async def test_a_leader_says_how_far_it_is(node) -> None:
    await node.create("orders")
    receipt = await node.append("orders", "a")
    seen = await scrape(node)

    (info,) = [labels for labels in seen.labels if set(labels) == {"node", "version"}]
    assert info["node"] == "n1"
    assert seen.value("cute_ready") == seen.value("cute_is_leader") == 1
    assert seen.value("cute_term") == receipt["term"]
    assert seen.value("cute_commit_index") == seen.value("cute_applied_index") == receipt["index"]
    assert seen.value("cute_lag_seconds") == 0
    stream = await node.call("GET", "/v1/streams/orders", status=200)
    assert seen.value("cute_streams") == 1
    assert seen.value("cute_stream_bytes") == stream["bytes"]
    assert seen.value("process_resident_memory_bytes") > 1e6
    assert seen.value("process_cpu_seconds_total") > 0


async def test_the_largest_lag_of_all_groups_is_told(node) -> None:
    assert (await scrape(node)).value("cute_group_lag_max") == 0
    await node.create("orders")
    await node.append("orders", "a", "b", "c")
    for group, offset in (("billing", 1), ("audit", 2)):
        path = f"/v1/groups/{group}/streams/orders/offset"
        await node.call("PUT", path, status=200, json={"offset": offset})
    seen = await scrape(node)
    assert seen.value("cute_groups") == 2
    assert seen.value("cute_group_lag_max") == 2


async def test_indexes_tell_how_far_they_are(node) -> None:
    assert (await scrape(node)).value("cute_indexes") == 0
    await node.create("orders")
    await node.append("orders", "1", "2", "3")
    body = {"kind": "btree", "on": "value:"}
    await node.call("PUT", "/v1/streams/orders/indexes/n", status=201, json=body)
    await node.until(lambda: node.replica.index("orders", "n").state == "ready")
    seen = await scrape(node)
    labels = {"stream": "orders", "index": "n"}
    assert seen.value("cute_indexes") == seen.value("cute_index_ready", **labels) == 1
    assert seen.value("cute_index_lag", **labels) == 0
    assert seen.value("cute_index_records_total", **labels) == 3
    assert seen.value("cute_filter_segments_total") == 0
    for number in range(30):
        await node.call("PUT", f"/v1/streams/s{number}", status=201)
        path = f"/v1/streams/s{number}/indexes/n"
        await node.call("PUT", path, status=201, json=body)
    told = [labels for labels in (await scrape(node)).labels if "index" in labels]
    assert len(told) == 3 * 20


async def test_an_append_is_an_fsync_and_its_bytes(node) -> None:
    await node.create("orders")
    before = await scrape(node)
    await node.append("orders", "x" * 1000)
    after = await scrape(node)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    count = grown("cute_wal_fsync_seconds_count")
    assert count >= 1
    assert grown("cute_wal_fsync_seconds_bucket", le="+Inf") == count
    assert 0 < grown("cute_wal_fsync_seconds_sum") < 10
    assert grown("cute_wal_written_bytes_total") > 1000
    assert after.value("cute_wal_pending_bytes") == 0


async def test_requests_are_counted_by_the_template_of_their_route(node) -> None:
    await node.create("orders")
    await node.append("orders", "a")
    for _ in range(3):
        await node.read("orders")
    await node.refused("GET", "/v1/streams/nowhere/records", "unknown_stream")
    await node.refused("GET", "/no/such/place", "not_found")
    await node.refused("PATCH", RECORDS, "method_not_allowed")
    await node.read("orders", offset=1, wait_ms=1)
    seen = await scrape(node)

    route = {"route": "/v1/streams/{stream}/records", "method": "GET"}
    assert seen.value("cute_http_requests_total", status="2xx", **route) == 4
    assert seen.value("cute_http_requests_total", status="4xx", **route) == 1
    assert seen.value("cute_http_request_seconds_count", **route) == 4, "the one that waited is out"
    assert seen.value("cute_http_request_seconds_bucket", le="10.0", **route) == 4
    route["method"] = "POST"
    assert seen.value("cute_http_requests_total", status="2xx", **route) == 1
    unmatched = {"route": "unmatched", "method": "any", "status": "4xx"}
    assert seen.value("cute_http_requests_total", **unmatched) == 2


async def test_a_client_that_did_not_wait_for_the_answer_is_gone(node) -> None:
    await node.create("orders")
    headers = {"Accept": "text/event-stream"}
    async with node.http.get(node.url(RECORDS), headers=headers) as response:
        await response.content.readline()
        assert (await scrape(node)).value("cute_http_waiting_reads") == 1
        response.close()
    await node.until(lambda: not node.context.under_way)
    seen = await scrape(node)
    route = {"route": "/v1/streams/{stream}/records", "method": "GET"}
    assert seen.value("cute_http_requests_total", status="gone", **route) == 1
    assert seen.value("cute_http_waiting_reads") == 0
    assert seen.value("cute_http_held_bytes", purpose="answers") == 0


async def test_labels_stay_few_whatever_clients_ask_for(node) -> None:
    for number in range(20):
        await node.create(f"stream-{number}")
        await node.read(f"stream-{number}")
        await node.refused("GET", f"/path-{number}", "not_found")
    values = {value for labels in (await scrape(node)).labels for value in labels.values()}
    assert not [value for value in values if re.search(r"stream-|path-", value)]
    templates = {path.replace(":[^/]+}", "}") for _, path, _ in ROUTES}
    assert {value for value in values if value.startswith("/")} <= templates


async def test_the_leader_knows_its_peers(cluster) -> None:
    leader, follower, _ = cluster
    peers = {node.config.id for node in cluster}
    await leader.create("orders")
    for node in cluster:
        for peer in peers - {node.config.id}:
            await node.until(lambda node=node, peer=peer: connected(node, peer))
    seen = {node.config.id: await scrape(node) for node in cluster}
    for node, scraped in seen.items():
        is_leader = node == leader.config.id
        assert scraped.value("cute_is_leader") == is_leader
        for peer in peers - {node}:
            assert scraped.value("cute_peer_connected", peer=peer) == 1
            assert (scraped.get("cute_peer_match_index", peer=peer) is not None) == is_leader
        assert scraped.get("cute_peer_connected", peer=node) is None
    assert 0 <= seen[follower.config.id].value("cute_lag_seconds") < 5

    await follower.replica.stop()
    follower.context.replica = None
    gone = {"peer": follower.config.id}
    await leader.until(lambda: not connected(leader, follower.config.id))
    assert (await scrape(leader)).value("cute_peer_connected", **gone) == 0


def connected(node, peer: str) -> bool:
    return next(n.connected for n in node.replica.status().nodes if n.id == peer)


async def test_a_short_disk_is_told(start_node) -> None:
    node = await start_node(disk_reserve=2**50)
    await node.until(lambda: node.replica.vitals().disk_free_bytes is not None)
    seen = await scrape(node)
    assert seen.value("cute_disk_free_bytes") > 0
    assert seen.value("cute_disk_short") == seen.value("cute_disk_full") == 1


async def test_a_checkpoint_is_counted_with_its_duration(start_node) -> None:
    node = await start_node(checkpoint_period=50)
    await node.create("orders")
    await node.until(lambda: node.replica.vitals().measures.checkpoints > 0)
    seen = await scrape(node)
    assert seen.value("cute_checkpoints_total") >= 1
    assert 0 < seen.value("cute_checkpoint_seconds") < 10
    assert seen.value("cute_disk_short") == 0


async def test_compaction_tells_what_it_did(start_node) -> None:
    node = await start_node(compaction_period=50, checkpoint_period=50)
    config = {"cleanup.policy": "compact", "segment.bytes": 16384}
    config["min.cleanable.dirty.ratio"] = 0.01
    await node.call("PUT", "/v1/streams/state", status=201, json={"config": config})
    for number in range(20):
        body = {"records": [{"key": f"k{number % 2}", "value": "x" * 6000}]}
        await node.call("POST", "/v1/streams/state/records", status=200, json=body)

    def done() -> bool:
        vitals = node.replica.vitals()
        is_idle = not vitals.is_compacting and not vitals.compactions_waiting
        is_all = pass_over(node.replica._machine.streams["state"], 0) is None
        return is_idle and is_all and vitals.measures.compaction_removed_records > 0

    await node.until(done)
    seen = await scrape(node)
    left = await node.read("state")
    info = await node.call("GET", "/v1/streams/state", status=200)
    removed = seen.value("cute_compaction_removed_records_total")
    assert removed == 20 - len(left["records"])
    assert 1 <= seen.value("cute_compaction_runs_total") <= 20
    assert seen.value("cute_compaction_read_bytes_total") > 20 * 6000
    assert 0 < seen.value("cute_compaction_written_bytes_total") < 20 * 6000
    assert 0 < seen.value("cute_compaction_seconds_total") < 60
    assert seen.value("cute_compaction_passes") == 0
    assert seen.value("cute_compaction_waiting_runs") == 0
    assert info["bytes"] < 20 * 6000


def rot_last_byte(folder: Path) -> None:
    (segment,) = folder.rglob("*.log")
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")


async def test_damage_that_nobody_can_mend_is_told(start_node) -> None:
    node = await start_node(scrub_bytes_per_s=0)
    await node.create("orders")
    await node.append("orders", "a")
    await node.restart()
    rot_last_byte(Path(node.config.data))
    seen = await scrape(node)
    assert seen.value("cute_damaged_places") == 0
    assert await node.call("GET", "/readyz", status=200) == {"status": "ready"}

    problem = await node.refused("GET", f"{RECORDS}?offset=0", "not_ready")
    assert problem["detail"] == (
        "the records of orders at offset 0 are damaged here; of the copies there is none"
    )
    assert (problem["reason"], problem["stream"], problem["offset"]) == ("damaged", "orders", 0)
    assert problem["retryable"]
    seen = await scrape(node)
    assert seen.value("cute_damaged_places") == seen.value("cute_unmended_places") == 1
    assert seen.value("cute_repaired_bytes_total") == 0
    told = await node.call("GET", "/readyz", status=200)
    assert told["status"] == "ready"
    (place,) = told["damaged"]
    assert place.pop("reason") == "checksum mismatch"
    where = {"stream": "orders", "segment": 0, "position": 0, "offset": 0}
    assert place == {**where, "copies": {}}


async def test_reads_from_memory_and_from_files_are_counted(start_node) -> None:
    node = await start_node()
    await node.create("orders")
    await node.append("orders", "a" * 1000)
    await node.restart()
    for hits, misses in ((0, 1), (1, 1), (2, 1)):
        await node.call("GET", f"{RECORDS}?offset=0&max_bytes=1000", status=200)
        seen = await scrape(node)
        assert seen.value("cute_cache_hits_total") == hits
        assert seen.value("cute_cache_misses_total") == misses
    assert 1000 < seen.value("cute_cache_bytes") < 2000


async def test_a_scrub_is_counted(start_node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "FIRST_S", 0.0)
    node = await start_node()
    await node.create("orders")
    await node.append("orders", "a" * 1000)
    await node.restart()
    await node.until(lambda: node.replica.vitals().measures.scrubbed_bytes > 1000)
    assert (await scrape(node)).value("cute_scrubbed_bytes_total") > 1000


async def test_metrics_work_before_recovery_and_while_the_node_stops(bare_node) -> None:
    seen = await scrape(bare_node)
    assert seen.value("cute_ready") == 0
    assert seen.value("process_open_fds") > 0
    assert seen.get("cute_term") is None

    await bare_node.recover()
    assert (await scrape(bare_node)).value("cute_ready") == 0
    assert await bare_node.server.drain(5)
    assert (await scrape(bare_node)).value("cute_is_leader") == 0


async def test_two_nodes_of_one_process_count_apart(cluster) -> None:
    first, second, _ = cluster
    await scrape(first)
    route = {"route": "/metrics", "method": "GET", "status": "2xx"}
    assert (await scrape(first)).value("cute_http_requests_total", **route) == 1
    assert (await scrape(second)).get("cute_http_requests_total", **route) is None


async def test_what_the_operators_table_names_is_there(start_node) -> None:
    node: Any = await start_node(checkpoint_period=50)
    await node.create("orders")
    body = {"kind": "btree", "on": "key"}
    await node.call("PUT", "/v1/streams/orders/indexes/k", status=201, json=body)
    await node.until(lambda: node.replica.vitals().measures.checkpoints > 0)
    names = set(re.findall(r"`((?:cute|process)_\w+)[`{]", README.read_text()))
    assert len(names) > 10
    leader_only = {"cute_peer_connected", "cute_peer_match_index"}
    found = {re.sub(r"_(bucket|sum|count)$", "", name) for name in (await scrape(node)).names}
    assert names - leader_only <= found


@pytest.mark.parametrize(
    ("seconds", "counts"), [(0.0, [1, 1, 1]), (1.0, [1, 1, 1]), (1.1, [0, 1, 1]), (9.0, [0, 0, 1])]
)
def test_a_bound_counts_what_is_at_most_so_long(seconds, counts) -> None:
    durations = Durations((1.0, 5.0))
    durations.add(seconds)
    assert [count for _, count in durations.cumulated()] == counts
    assert durations.sum_s == seconds
