"""A checkpoint that rots under a running node is noticed and written anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cute_logger.replication.checkpoint_scrub import CheckpointScrub
from cute_logger.replication.config import Limits
from cute_logger.replication.measures import Measures
from cute_logger.storage import checkpoint
from cute_logger.storage.filesystem import OS_FILES
from support.replicas import MakeCluster, until

SECTIONS = [b"one" * 100, b"two" * 200, b"three"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(OS_FILES, str(tmp_path), SECTIONS)
    return tmp_path


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def one_round(folder: Path, measures: Measures, between: Callable[[], None]) -> tuple[int, int]:
    """Bytes read, and how often another checkpoint was asked for."""
    renewals: list[None] = []
    scrub = CheckpointScrub(OS_FILES, str(folder), measures, lambda: renewals.append(None))
    scrub.begin()
    read = 0
    while (size := scrub.stepped(scrub.step())) is not None:
        read += size
        between()
    return read, len(renewals)


def test_a_sound_one_is_read_to_its_end(folder: Path) -> None:
    read, renewals = one_round(folder, Measures(), lambda: None)
    assert read > sum(map(len, SECTIONS))
    assert not renewals


def test_any_flipped_bit_is_noticed(folder: Path) -> None:
    path = folder / "checkpoint"
    for position in range(path.stat().st_size):
        flip(path, position)
        measures = Measures()
        assert one_round(folder, measures, lambda: None)[1] == 1, position
        assert measures.damaged_checkpoints == 1
        flip(path, position)


def test_one_replaced_while_it_is_read_is_no_damage(folder: Path) -> None:
    measures = Measures()

    def replace() -> None:
        checkpoint.save(OS_FILES, str(folder), [b"of another state"])
        measures.checkpoints += 1

    assert one_round(folder, measures, replace)[1] == 0


def test_none_is_none(tmp_path: Path) -> None:
    assert one_round(tmp_path, Measures(), lambda: None) == (0, 0)


async def test_a_running_node_writes_it_anew(make_cluster: MakeCluster) -> None:
    limits = Limits(checkpoint_bytes=1, scrub_bytes_per_s=64 << 20, scrub_pause_s=0.05)
    cluster = await make_cluster(1, limits=limits)
    await cluster.append(b"value" * 100)
    node = await cluster.leader()
    path = cluster.folder_of("n1") / "checkpoint"
    await until(
        lambda: node._engine.persistence._checkpoint_index == node.applied_index,
        "a checkpoint of everything",
    )
    right = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(40)
        file.write(bytes([right[40] ^ 1]))
    await until(lambda: path.read_bytes() == right, "the checkpoint to be right")
    assert node.vitals().measures.damaged_checkpoints == 1
    await cluster.stop("n1")
    await cluster.start("n1")
    assert await cluster.values("n1") == [b"value" * 100]
