"""The simulated disk forgets what it may forget, and nothing else; and the log lives with that."""

from __future__ import annotations

import errno
from random import Random

import pytest

from cute_logger.replication.sim.disk import SimDisk, Stopped
from cute_logger.storage import Log, Record
from cute_logger.storage.errors import FolderLocked
from cute_logger.storage.wal import Wal


@pytest.fixture
def disk() -> SimDisk:
    disk = SimDisk(Random(1))
    disk.is_usable = True
    disk.make_folder("/d")
    disk.sync_folder("/")
    return disk


def write(disk: SimDisk, path: str, data: bytes, *, synced: bool) -> None:
    file = disk.open(path, create=not disk.exists(path))
    file.write_at(file.size(), [data])
    if synced:
        file.sync()
        disk.sync_folder("/d")
    file.close()


def read(disk: SimDisk, path: str) -> bytes:
    file = disk.open(path)
    return file.read_at(0, file.size())


def test_the_end_of_a_process_loses_nothing(disk: SimDisk) -> None:
    write(disk, "/d/f", b"unsynced", synced=False)
    disk.end_process()
    assert read(disk, "/d/f") == b"unsynced"


def test_a_power_loss_keeps_what_was_synced(disk: SimDisk) -> None:
    write(disk, "/d/f", b"kept", synced=True)
    write(disk, "/d/f", b"maybe", synced=False)
    disk.lose_power()
    found = read(disk, "/d/f")
    assert found[:4] == b"kept"
    assert len(found) <= 9


def test_a_power_loss_tears_writes_at_any_byte() -> None:
    lengths = set()
    for seed in range(300):
        disk = SimDisk(Random(seed))
        disk.is_usable = True
        disk.make_folder("/d")
        disk.sync_folder("/")
        write(disk, "/d/f", b"", synced=True)
        write(disk, "/d/f", b"12345", synced=False)
        disk.lose_power()
        lengths.add(len(read(disk, "/d/f")))
    assert lengths == {0, 1, 2, 3, 4, 5}


def test_pages_of_unsynced_writes_survive_in_any_order() -> None:
    page = 4096
    seen = set()
    for seed in range(200):
        disk = SimDisk(Random(seed))
        disk.is_usable = True
        disk.make_folder("/d")
        disk.sync_folder("/")
        write(disk, "/d/f", bytes(2 * page), synced=True)
        disk.open("/d/f").write_at(0, [b"a" * page, b"b" * page])
        disk.lose_power()
        found = read(disk, "/d/f")
        seen.add((found[:page] == b"a" * page, found[page:] == b"b" * page))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_a_name_may_go_until_its_folder_is_synced() -> None:
    outcomes = set()
    for seed in range(40):
        disk = SimDisk(Random(seed))
        disk.is_usable = True
        disk.make_folder("/d")
        disk.sync_folder("/")
        file = disk.open("/d/f", create=True)
        file.write_at(0, [b"x"])
        file.sync()
        disk.lose_power()
        outcomes.add(disk.exists("/d/f"))
    assert outcomes == {False, True}


def test_a_rename_is_done_or_not(disk: SimDisk) -> None:
    write(disk, "/d/old", b"x", synced=True)
    disk.rename("/d/old", "/d/new")
    disk.lose_power()
    assert disk.exists("/d/old") != disk.exists("/d/new")


def test_a_lock_ends_with_its_process(disk: SimDisk) -> None:
    disk.lock("/d/lock")
    with pytest.raises(FolderLocked):
        disk.lock("/d/lock")
    disk.end_process()
    disk.lock("/d/lock")


def test_a_map_shows_and_changes_the_files_bytes(disk: SimDisk) -> None:
    write(disk, "/d/f", bytes(8), synced=True)
    view = disk.open("/d/f").map(8)
    view[0] = 7
    assert read(disk, "/d/f")[0] == 7


def test_a_process_can_be_stopped_before_any_change(disk: SimDisk) -> None:
    disk.stop_after = 2
    write(disk, "/d/f", b"", synced=False)
    with pytest.raises(Stopped):
        disk.remove("/d/f")
    assert disk.exists("/d/f")


def test_the_event_loop_must_not_touch_the_disk(disk: SimDisk) -> None:
    disk.is_usable = False
    with pytest.raises(AssertionError):
        disk.exists("/d")


def test_the_log_writes_again_what_a_failed_fsync_lost(disk: SimDisk) -> None:
    """The kernel takes the pages of a failed fsync for clean: they are read, but never written."""
    wal = Wal.open("/d/wal", files=disk)
    wal.append(1, 1, b"synced")
    flush(wal)
    wal.append(2, 1, b"failed")
    disk.loses_on_failure, disk.failure_errno, disk.fail_after = True, errno.EIO, 1
    with pytest.raises(OSError, match="Input/output error"):
        flush(wal)
    disk.end_process()

    assert Wal.open("/d/wal", files=disk).last_index == 2
    assert Wal.open("/d/wal", files=disk.synced_only(without="")).last_index == 2


def test_a_log_of_its_own_writes_again_what_a_failed_fsync_lost(disk: SimDisk) -> None:
    log = Log.open("/d/log", files=disk)
    log.append_records([Record(value=b"synced")], timestamp=1)
    log.sync()
    log.append_records([Record(value=b"failed")], timestamp=2)
    disk.loses_on_failure, disk.failure_errno, disk.fail_after = True, errno.EIO, 0
    with pytest.raises(OSError, match="Input/output error"):
        log.sync()
    log.close()

    log = Log.open("/d/log", files=disk)
    promised = log.sync()
    assert promised.log_end_offset == 2
    survivor = Log.open("/d/log", files=disk.synced_only(without=""), vouched=promised)
    assert [record.value for record in survivor.records()] == [b"synced", b"failed"]


def flush(wal: Wal) -> None:
    flush = wal.begin_flush()
    assert flush is not None
    flush.run()
    wal.end_flush(flush)
