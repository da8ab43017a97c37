"""A store gives back batches in whatever chunks it reads, and says where they go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cute_logger.storage.batch import Batch, build_batch
from cute_logger.storage.errors import CorruptBatch, IncompleteBatch
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.store import Store


def batches(*body_sizes: int) -> list[Batch]:
    return [
        build_batch(bytes(size), count=1, base_offset=offset, timestamp=0, max_timestamp=0)
        for offset, size in enumerate(body_sizes)
    ]


def stored(tmp_path: Path, written: list[Batch]) -> Store:
    store = Store.create(OS_FILES, f"{tmp_path}/store")
    store.append([batch.data for batch in written])
    return store


def scanned(store: Store, position: int, chunk_bytes: int) -> list[Batch]:
    return [batch for chunk in store.scan(position, chunk_bytes) for batch in chunk]


@pytest.mark.parametrize("chunk_bytes", [0, 1, 95, 96, 97, 100, 150, 200, 5000, 10**9])
def test_a_scan_finds_every_batch_whatever_the_chunk(tmp_path: Path, chunk_bytes: int) -> None:
    written = batches(0, 1, 50, 3000, 2, 0, 700, 3)
    store = stored(tmp_path, written)
    position = 0
    for number, batch in enumerate(written):
        assert scanned(store, position, chunk_bytes) == written[number:]
        position += batch.size
    assert scanned(store, position, chunk_bytes) == []
    store.close()


def test_a_scan_reads_no_more_than_a_chunk_at_a_time(tmp_path: Path) -> None:
    store = stored(tmp_path, batches(*[4] * 1000))
    first = next(store.scan(0, 1050))
    assert len(first) == 10
    assert len(first[0].data.obj) == 1050  # type: ignore[union-attr, arg-type]
    store.close()


@pytest.mark.parametrize("chunk_bytes", [1, 150, 10**6])
def test_a_scan_yields_what_is_good_before_it_raises(tmp_path: Path, chunk_bytes: int) -> None:
    written = batches(5, 5, 5)
    store = stored(tmp_path, written)
    bad_position = written[0].size + written[1].size
    store.append([b"\xff"])
    store.cut(store.size - 2)
    chunks = store.scan(0, chunk_bytes)
    seen: list[Batch] = []
    with pytest.raises(IncompleteBatch) as torn:
        seen.extend(batch for chunk in chunks for batch in chunk)
    assert seen == written[:2]
    assert (torn.value.path, torn.value.position) == (store.path, bad_position)
    store.close()


def test_a_flipped_byte_is_found_where_its_batch_begins(tmp_path: Path) -> None:
    written = batches(5, 5, 5)
    store = stored(tmp_path, written)
    with open(store.path, "r+b") as file:
        file.seek(written[0].size + 97)
        file.write(b"!")
    with pytest.raises(CorruptBatch) as corrupt:
        scanned(store, 0, 10**6)
    assert corrupt.value.position == written[0].size
    assert not isinstance(corrupt.value, IncompleteBatch)
    store.close()


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    written = batches(5, 5, 5)
    store = stored(tmp_path, written)
    with open(store.path, "r+b") as file:
        file.truncate(written[0].size)
    with pytest.raises(IncompleteBatch) as torn:
        scanned(store, 0, written[0].size)
    assert torn.value.position == written[0].size
    store.close()
