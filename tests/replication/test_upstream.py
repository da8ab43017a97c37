"""pysyncobj must be the code this package was proven with."""

from __future__ import annotations

import inspect
import re

import pysyncobj.syncobj
import pytest
from pysyncobj import SyncObj

from cute_logger.replication import elections, upstream
from cute_logger.replication.raft import RaftCore


def test_the_installed_pysyncobj_is_the_pinned_one() -> None:
    upstream.check_upstream()


def test_a_changed_method_stops_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncObj, "_SyncObj__setState", lambda self, state: None)
    with pytest.raises(ImportError, match="_SyncObj__setState"):
        upstream.check_upstream()


def test_a_method_in_the_place_of_another_stops_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyncObj, "doTick", SyncObj._onTick)
    with pytest.raises(ImportError, match="doTick"):
        upstream.check_upstream()


def test_the_released_file_is_known_without_a_look_at_its_methods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "fingerprint", None)
    upstream.check_upstream()


def test_in_another_file_every_method_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "RELEASED", "another file's")
    upstream.check_upstream()
    monkeypatch.setattr(upstream, "fingerprint", lambda method: "another method's")
    with pytest.raises(ImportError, match="__init__, _onTick, doTick"):
        upstream.check_upstream()


def test_every_field_we_name_exists_upstream() -> None:
    source = inspect.getsource(pysyncobj.syncobj)
    named = [
        field._key.removeprefix("_SyncObj__")
        for field in vars(elections.Elections).values()
        if isinstance(field, upstream.Stock)
    ]
    assert len(named) > 10
    for name in named:
        assert re.search(rf"self\.__{name}\b", source), name


def test_every_override_replaces_a_method_that_exists() -> None:
    layers = RaftCore.__mro__[: RaftCore.__mro__.index(SyncObj)]
    overrides = [
        name
        for layer in layers
        for name, value in vars(layer).items()
        if name.startswith("_SyncObj__") and callable(value)
    ]
    assert len(overrides) > 5
    for name in overrides:
        assert hasattr(SyncObj, name), name
