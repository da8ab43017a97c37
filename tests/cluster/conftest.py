from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import ProcessCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    """Three running nodes (a leader may still be missing)."""
    processes = ProcessCluster(tmp_path)
    processes.start()
    yield processes
    processes.stop()
