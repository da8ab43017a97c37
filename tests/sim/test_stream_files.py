"""What a checkpoint vouches for is there after a power loss, names too."""

from __future__ import annotations

from random import Random

import pytest

from cute_logger.replication.sim.disk import SimDisk
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.replication.unwritten import Unwritten
from cute_logger.storage.batch import build_batch
from cute_logger.storage.folder import DataFolder

BATCH = build_batch(b"", count=1, base_offset=0, timestamp=0, max_timestamp=0)


@pytest.mark.parametrize("is_leftover", [False, True])
def test_a_new_stream_is_durable_also_in_a_folder_that_an_earlier_process_made(
    is_leftover: bool,
) -> None:
    disk = SimDisk(Random(1))
    disk.is_usable = True
    folder = DataFolder.open("/data", "n1", files=disk)
    if is_leftover:
        disk.make_folder(folder.stream_folder(7))
    with StreamFiles(folder, disk) as streams:
        streams.open({}, keeps_others=True)
        streams.create(7)
        unwritten = Unwritten()
        unwritten.add(BATCH, begins_segment=True)
        streams.write({7: unwritten})
        states = streams.sync()

    after = disk.synced_only(without="")
    with StreamFiles(folder, after) as streams:
        streams.open(states, keeps_others=False)
        assert streams.found_damaged == []
        assert [batch.data for batch in streams.read(7, 0, 1000)] == [BATCH.data]
