"""A node that is behind, with another node's snapshot staged, on a simulated disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from cute_logger.replication import snapshot
from cute_logger.replication.catchup import Catchup
from cute_logger.replication.commands import CreateStream, encode_commands
from cute_logger.replication.config import Limits, ReplicaConfig
from cute_logger.replication.install import Held, Piece, Staging, plan
from cute_logger.replication.jobs import Jobs
from cute_logger.replication.messages import SnapshotData, SnapshotOffer, SnapshotRead
from cute_logger.replication.recovery import Recovered, recover
from cute_logger.replication.runtime import Runtime
from cute_logger.replication.sim.disk import SimDisk
from cute_logger.storage import checkpoint
from cute_logger.storage.names import store_path
from support.applied import Applied
from support.in_turn import InTurn

HERE, THERE = 20, 60
"""What the node has applied, and what the snapshot covers."""
SEGMENT_BYTES = 16 << 10
CONFIG = ReplicaConfig("n1", "/data", ("n1", 0), {}, limits=Limits(wal_segment_bytes=1 << 20))


def payload(index: int) -> memoryview:
    if index == 1:
        return memoryview(
            encode_commands([CreateStream("s", {"segment.bytes": SEGMENT_BYTES}, index)])
        )
    return memoryview(encode_commands([Applied().batch(b"%06d" % index * 200)]))


def grown(seed: int, last: int) -> tuple[SimDisk, Recovered]:
    """A node that has applied, written and checkpointed entries 1 … last."""
    disk = SimDisk(Random(seed))
    disk.is_usable = True
    node = recover(CONFIG, disk)
    machine, files = node.machine, node.stream_files
    for index in range(1, last + 1):
        machine.apply(index, 1, payload(index))
    created, machine.created = machine.created, []
    for stream in created:
        files.create(stream.id)
    taken = machine.take_unwritten()
    files.write(taken)
    machine.written(taken)
    sections = snapshot.Snapshot(machine).sections(files.sync())
    checkpoint.save(disk, node.folder.path, sections)
    return disk, node


def read_all(disk: SimDisk, path: str, start: int = 0) -> bytes:
    file = disk.open(path)
    return file.read_at(start, file.size() - start)


def fetched(seed: int) -> tuple[SimDisk, Staging, list[Piece], dict[int, Held]]:
    """A node that is behind and has everything staged."""
    source, leader = grown(seed, THERE)
    disk, node = grown(seed, HERE)
    staging = Staging(disk, node.folder)
    staging.begin()
    staging.write_checkpoint(0, read_all(source, checkpoint.path_in(leader.folder.path)))
    held = node.stream_files.held({})
    pieces = plan(snapshot.log_states(staging.checkpoint_sections()), held)
    for piece in pieces:
        path = store_path(leader.folder.stream_folder(piece.stream_id), piece.base_offset)
        staging.write_piece(piece, piece.start, read_all(source, path, piece.start))
    return disk, staging, pieces, held


def values(node: Recovered) -> list[bytes | None]:
    found: list[bytes | None] = []
    while batches := node.stream_files.read(1, len(found), 1 << 20):
        found += [record.value for batch in batches for record in batch.records()]
    return found


def is_whole(node: Recovered, index: int) -> bool:
    """Is this the state after entry `index`, files and all?"""
    expected = [b"%06d" % number * 200 for number in range(2, index + 1)]
    return (
        node.machine.applied_index == index
        and node.machine.streams["s"].next_offset == len(expected)
        and values(node) == expected
        and node.wal.last_index >= index
    )


def catchup_of(
    disk: SimDisk,
    node: Recovered,
    runtime: Runtime,
    send: Callable[[Any], object],
    on_fetched: Callable[[], None] = lambda: None,
) -> Catchup:
    """What fetches a snapshot for the node, as fast as it likes."""
    return Catchup(
        Staging(disk, node.folder),
        node.stream_files,
        Jobs(runtime, lambda step, *args: step(*args)),
        lambda peer, message: send(message),
        on_fetched,
        1 << 80,
    )


def fetch(disk: SimDisk, node: Recovered) -> None:
    """Fetch the same snapshot as `fetched` has, what is staged of it excepted."""
    source, leader = grown(0, THERE)
    path = checkpoint.path_in(leader.folder.path)
    runtime, asked, done = InTurn(), deque[SnapshotRead](), list[bool]()
    catchup = catchup_of(disk, node, runtime, asked.append, lambda: done.append(True))
    size = len(read_all(source, path))
    catchup.offered("n2", SnapshotOffer(1, 1, THERE, 1, size))
    runtime.run_jobs()
    while not done:
        read = asked.popleft()
        catchup.arrived("n2", SnapshotData(read.request, _bytes_of(source, leader, read)))
        runtime.run_jobs()


def _bytes_of(source: SimDisk, leader: Recovered, read: SnapshotRead) -> bytes:
    path = checkpoint.path_in(leader.folder.path)
    if read.stream_id is not None:
        path = store_path(leader.folder.stream_folder(read.stream_id), read.base_offset)
    return read_all(source, path, read.position)[: read.length]
