"""GET /metrics: what a node knows of itself, in Prometheus' text format.

State is read when somebody asks. Labels have few values, whatever clients do: no path, no client is
one, and of indexes only those that are furthest behind are told by name.

Imported at the first scrape: prometheus_client would take part of every start's time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ...replication.measures import Durations, Vitals
from ...replication.replica import Replica
from ...replication.types import ClusterStatus
from .context import Context, context_of
from .health import why_not_ready

INDEXES_TOLD: Final = 20
"""By name: those furthest behind."""


async def get_metrics(request: web.Request) -> web.Response:
    """GET /metrics: also during recovery and while stopping."""
    registry = CollectorRegistry()  # of this node alone: several may live in one process
    registry.register(NodeCollector(context_of(request)))
    ProcessCollector(registry=registry)
    text = generate_latest(registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class NodeCollector(Collector):
    """During recovery there is no replica to ask: what it would say is left out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._info = {"node": context.config.id, "version": _version()}

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering this collector shall not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        context = self._context
        yield InfoMetricFamily("cute_node", "This node and its software.", value=self._info)
        ready = why_not_ready(context) is None
        yield _gauge("cute_ready", "It has a leader and has caught up, as /readyz says.", ready)
        yield from _http(context)
        if context.replica is not None:
            status, vitals = context.replica.status(), context.replica.vitals()
            yield from _raft(context.replica, status)
            yield from _peers(status)
            yield from _log(vitals)
            yield from _indexes(context.replica)
            yield from _cache(vitals)
            yield from _compaction(vitals)
            yield from _disk(vitals)
            yield from _damage(vitals)


def _http(context: Context) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "cute_http_requests",
        "Requests answered, by class of status; gone: nobody took the answer.",
        labels=("route", "method", "status"),
    )
    for labels, count in sorted(context.traffic.requests.items()):
        requests.add_metric(labels, count)
    yield requests
    durations = HistogramMetricFamily(
        "cute_http_request_seconds",
        "Time to answer a request; reads that waited for records are left out.",
        labels=("route", "method"),
    )
    for route, measured in sorted(context.traffic.durations.items()):
        durations.add_metric(route, *_buckets(measured))
    yield durations
    yield _gauge("cute_http_connections", "Open HTTP connections.", context.connections)
    yield _gauge("cute_http_waiting_reads", "Reads that wait for records.", len(context.polls))
    held = GaugeMetricFamily(
        "cute_http_held_bytes", "Memory held for bodies and answers.", labels=("purpose",)
    )
    held.add_metric(("bodies",), context.bodies.taken)
    held.add_metric(("answers",), context.answers.taken)
    yield held


def _raft(replica: Replica, status: ClusterStatus) -> Iterator[Metric]:
    yield _gauge(
        "cute_repairing", "Damaged data was set aside and is being fetched.", replica.is_repairing
    )
    yield _gauge("cute_is_leader", "This node leads.", replica.is_leader)
    yield _gauge("cute_term", "Raft's term.", status.term)
    yield _gauge("cute_commit_index", "Newest entry known to be committed.", status.commit_index)
    yield _gauge("cute_applied_index", "Newest entry applied here.", status.applied_index)
    yield _gauge("cute_lag_seconds", "Time since the leader was heard from.", replica.lag_ms / 1000)


def _peers(status: ClusterStatus) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "cute_peer_connected", "A connection to the peer is open.", labels=("peer",)
    )
    match = GaugeMetricFamily(
        "cute_peer_match_index",
        "Newest entry durable on the peer, known to the leader only.",
        labels=("peer",),
    )
    for node in status.nodes:
        if node.id == status.node:
            continue
        connected.add_metric((node.id,), node.connected)
        if node.match_index is not None:
            match.add_metric((node.id,), node.match_index)
    yield connected
    yield match


def _log(vitals: Vitals) -> Iterator[Metric]:
    measures = vitals.measures
    fsyncs = HistogramMetricFamily(
        "cute_wal_fsync_seconds", "Writes of the write-ahead log with their fdatasync."
    )
    fsyncs.add_metric((), *_buckets(measures.flushes))
    yield fsyncs
    yield _counter(
        "cute_wal_written_bytes", "Written to the write-ahead log.", measures.flushed_bytes
    )
    yield _gauge(
        "cute_wal_pending_bytes",
        "On the way to the write-ahead log, not durable yet.",
        vitals.wal_pending_bytes,
    )
    yield _gauge(
        "cute_appends_waiting_bytes",
        "Appends that are queued or uncommitted on the leader.",
        vitals.waiting_bytes,
    )
    yield _counter("cute_checkpoints", "Checkpoints taken.", measures.checkpoints)
    if measures.checkpoint_s is not None:
        yield _gauge(
            "cute_checkpoint_seconds", "How long the last one took.", measures.checkpoint_s
        )
    yield _gauge("cute_streams", "Streams.", vitals.stream_count)
    yield _gauge("cute_stream_bytes", "Bytes of all streams.", vitals.stream_bytes)
    yield _gauge("cute_groups", "Consumer groups.", vitals.group_count)
    yield _gauge(
        "cute_group_lag_max",
        "Records that the group furthest behind has before it in a stream.",
        vitals.group_lag_max,
    )


def _cache(vitals: Vitals) -> Iterator[Metric]:
    yield _gauge("cute_cache_bytes", "Batches in memory for readers.", vitals.cached_bytes)
    yield _counter("cute_cache_hits", "Reads answered from memory.", vitals.cache_hits)
    yield _counter("cute_cache_misses", "Reads that went to a file.", vitals.cache_misses)


def _compaction(vitals: Vitals) -> Iterator[Metric]:
    measures = vitals.measures
    yield _counter(
        "cute_compaction_read_bytes",
        "Read to find out what may go, and to make new segments.",
        measures.compacted_bytes,
    )
    yield _counter(
        "cute_compaction_written_bytes",
        "Of the segments it made here.",
        measures.compaction_written_bytes,
    )
    yield _counter("cute_compaction_runs", "Runs of segments it made one of.", measures.compactions)
    yield _counter(
        "cute_compaction_removed_records",
        "Records it removed.",
        measures.compaction_removed_records,
    )
    yield _counter(
        "cute_compaction_seconds",
        "Time of its steps, the wait for the streams' thread included.",
        measures.compaction_s,
    )
    yield _gauge(
        "cute_compaction_passes",
        "Passes under way over a stream, on the leader.",
        vitals.is_compacting,
    )
    yield _gauge(
        "cute_compaction_waiting_runs",
        "Runs agreed upon and not yet done to this node's files.",
        vitals.compactions_waiting,
    )


def _indexes(replica: Replica) -> Iterator[Metric]:
    found = replica.all_indexes()
    yield _gauge("cute_indexes", "Secondary indexes of all streams.", len(found))
    lag = GaugeMetricFamily(
        "cute_index_lag", "Records that the index does not cover yet.", labels=("stream", "index")
    )
    ready = GaugeMetricFamily(
        "cute_index_ready", "It has caught up since the node started.", labels=("stream", "index")
    )
    records = CounterMetricFamily(
        "cute_index_records", "Records taken into the index.", labels=("stream", "index")
    )
    for stream, info in sorted(found, key=lambda each: -each[1].lag)[:INDEXES_TOLD]:
        lag.add_metric((stream, info.name), info.lag)
        ready.add_metric((stream, info.name), info.state == "ready")
        records.add_metric((stream, info.name), info.records)
    yield lag
    yield ready
    yield records
    counts = replica.filter_counts
    yield _counter(
        "cute_filter_segments", "Segments looked up in a Bloom filter by scans.", counts.looked_at
    )
    yield _counter(
        "cute_filter_segments_skipped", "Of these, those not read for it.", counts.skipped
    )


def _disk(vitals: Vitals) -> Iterator[Metric]:
    if vitals.disk_free_bytes is not None:
        yield _gauge("cute_disk_free_bytes", "Room on the data disk.", vitals.disk_free_bytes)
    yield _gauge("cute_disk_short", "Less room than the disk's reserve.", vitals.disk_is_short)
    yield _gauge("cute_disk_full", "No entry is accepted any more.", vitals.disk_is_full)


def _damage(vitals: Vitals) -> Iterator[Metric]:
    measures = vitals.measures
    yield _counter(
        "cute_damaged_checkpoints", "Found damaged and written anew.", measures.damaged_checkpoints
    )
    yield _gauge("cute_damaged_places", "Places to mend in segments.", vitals.damaged_places)
    yield _gauge(
        "cute_unmended_places",
        "Of these, the ones no other node could help with so far.",
        vitals.unmended_places,
    )
    yield _counter(
        "cute_repaired_bytes", "Written in the place of damaged ones.", measures.mended_bytes
    )
    yield _counter(
        "cute_scrubbed_bytes", "Read in the background, for damage.", measures.scrubbed_bytes
    )


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)


def _buckets(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    counts = [
        ("+Inf" if bound_s == math.inf else str(bound_s), float(count))
        for bound_s, count in durations.cumulated()
    ]
    return counts, durations.sum_s


@cache
def _version() -> str:
    try:
        return version("cute-logger-cluster")
    except PackageNotFoundError:
        return "unknown"
