"""Data folders of earlier versions open, and hold what was written: offsets, dedupe, settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from data_folders.make import append, read_all, record, start

from cute_logger.replication.errors import OutOfOrderSequence, ProducerFenced, UnknownStream
from cute_logger.replication.replica import Replica
from cute_logger.replication.types import ProducerStamp
from support.data_folders import COMMITTED, copied, facts_of

FOLDERS = sorted(path.stem for path in COMMITTED.glob("v*.json"))
Opened = Callable[[str], Awaitable[Replica]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    replicas: list[Replica] = []

    async def open_copy(name: str) -> Replica:
        replicas.append(await start(copied(name, tmp_path)))
        return replicas[-1]

    yield open_copy
    for replica in replicas:
        await replica.stop()


def as_then(now: dict[str, Any], then: dict[str, Any]) -> Any:
    """`now` without what later versions added to it."""
    known = {name: value for name, value in now.items() if name in then}
    return {
        name: as_then(value, then[name]) if isinstance(value, dict) else value
        for name, value in known.items()
    }


def test_the_folders_are_there_and_small() -> None:
    assert {"v1-clean", "v1-torn"} <= set(FOLDERS)
    files = [path for path in COMMITTED.rglob("v1*") for path in [path, *path.rglob("*")]]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 200_000


@pytest.mark.parametrize("name", FOLDERS)
async def test_streams_and_records_are_as_they_were(opened: Opened, name: str) -> None:
    replica = await opened(name)
    assert replica.applied_index >= facts_of(name)["applied_index"]
    for then in facts_of(name)["streams"]:
        info = asdict(replica.stream(then["name"]))
        records = await read_all(replica, then["name"])
        assert as_then(info, then) == {
            key: value for key, value in then.items() if key != "records"
        }
        assert records == then["records"]
    assert {info.name for info in replica.streams()} == {
        then["name"] for then in facts_of(name)["streams"]
    }
    with pytest.raises(UnknownStream):
        replica.stream("gone")


@pytest.mark.parametrize("name", FOLDERS)
async def test_repeats_are_answered_with_the_first_receipt(opened: Opened, name: str) -> None:
    replica = await opened(name)
    facts = facts_of(name)
    end = replica.stream("orders").high_watermark
    for key, receipt in facts["keys"].items():
        number = int(key.removeprefix("key-"))
        again = append("orders", [record(number)], idempotency_key=key)
        found = asdict(await replica.append(again, timeout_s=10))
        assert as_then(found, receipt) == receipt | {"duplicate": True}
    for sent in facts["stamps"]:
        stamp = ProducerStamp(*sent["stamp"])
        again = append("orders", [record(sent["record"])], producer=stamp)
        found = asdict(await replica.append(again, timeout_s=10))
        assert as_then(found, sent["receipt"]) == sent["receipt"] | {"duplicate": True}
    assert replica.stream("orders").high_watermark == end


@pytest.mark.parametrize("name", FOLDERS)
async def test_producers_go_on_where_they_were(opened: Opened, name: str) -> None:
    replica = await opened(name)
    producer, epoch, sequence = facts_of(name)["stamps"][-1]["stamp"]
    end = replica.stream("orders").high_watermark

    def next_batch(ahead: int) -> Any:
        stamp = ProducerStamp(producer, epoch, sequence + ahead)
        return replica.append(append("orders", [record(0)], producer=stamp), timeout_s=10)

    with pytest.raises(OutOfOrderSequence):
        await next_batch(2)
    receipt = await next_batch(1)
    assert (receipt.first_offset, receipt.duplicate) == (end, False)
    assert await replica.register_producer("till", timeout_s=10) == (producer, epoch + 1)
    with pytest.raises(ProducerFenced):
        await next_batch(2)


def test_in_the_torn_folder_streams_came_and_went_behind_the_checkpoint() -> None:
    """The node says there are two; the files are older, or newer, than that."""
    streams = COMMITTED / "v1-torn" / "streams"
    assert [path.name[-1] for path in sorted(streams.iterdir())] == ["1", "2", "4"]
    assert [info["name"] for info in facts_of("v1-torn")["streams"]] == ["empty", "late", "orders"]
