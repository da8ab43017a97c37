from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cute_logger.replication.config import Limits
from support.replicas import Cluster, MakeCluster


@pytest.fixture
async def make_cluster(tmp_path: Path) -> AsyncIterator[MakeCluster]:
    clusters: list[Cluster] = []

    async def make(
        count: int = 3, limits: Limits | None = None, starting: tuple[str, ...] = ()
    ) -> Cluster:
        cluster = Cluster(tmp_path / str(len(clusters)), count, limits or Limits())
        clusters.append(cluster)
        await cluster.start(*starting)
        leader = await cluster.leader()
        await leader.create_stream("s", {}, timeout_s=10)
        return cluster

    yield make
    for cluster in clusters:
        await cluster.stop()
