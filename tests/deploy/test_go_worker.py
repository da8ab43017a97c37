"""The Go load workers: what is missing is named, and their figures can be added to ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from peers import go_worker


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "golang-go" in (go_worker.why_not("nats", tmp_path) or "")
    go.touch(0o755)
    assert "golang-github-nats-io-go-nats-dev" in (go_worker.why_not("nats", tmp_path) or "")
    (tmp_path / "src" / "github.com/nats-io/nats.go").mkdir(parents=True)
    assert go_worker.why_not("nats", tmp_path) is None
    assert go_worker.why_not("zookeeper", tmp_path) == "no load worker is written for it"
