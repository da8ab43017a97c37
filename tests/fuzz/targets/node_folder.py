"""A node's whole data folder with damage anywhere, opened as at a start: `replication.recovery`."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from cute_logger.replication import snapshot
from cute_logger.replication.commands import CreateStream, encode_commands
from cute_logger.replication.config import Limits, ReplicaConfig
from cute_logger.replication.dump import Dump, Selection
from cute_logger.replication.members import Config, Member, encode_config
from cute_logger.replication.recovery import Recovered, recover
from cute_logger.replication.upstream import COMMAND, MEMBERS
from cute_logger.replication.verification import Verification
from cute_logger.storage import checkpoint
from cute_logger.storage.errors import DamagedBatch, StorageError
from cute_logger.storage.stopped_folder import StoppedFolder
from cute_logger.storage.wal import Wal
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk
from support.applied import Applied

_DATA = "/data"
_ALONE = ReplicaConfig("n1", _DATA, ("n1", 1), {}, limits=Limits(wal_segment_bytes=1_500))
_ONE_OF_TWO = replace(_ALONE, peers={"n2": ("n2", 1)})
_COVERED, _LAST = 12, 20
_VALUES = [b"%06d" % index * 20 for index in range(3, _LAST + 1)]


def target(data: bytes) -> None:
    choices = Choices(data)
    disk = Disk()
    for path, content in _grown().items():
        disk.put(path, content)
    for _ in range(1 + choices.below(2)):
        _damage(disk, choices)
    sound = _is_sound(disk)
    config = choices.pick((_ALONE, _ONE_OF_TWO))
    node = _started(config, disk)
    assert node is not None or not sound, "found sound, and does not start"
    if node is not None:
        _check(node, is_whole=sound is True)
        node.close()


def _started(config: ReplicaConfig, disk: Disk) -> Recovered | None:
    try:
        return recover(config, disk)
    except StorageError:
        return None


def _is_sound(disk: Disk) -> bool | None:
    """What somebody is told who looks at the stopped node's files; None if that is refused."""
    try:
        with StoppedFolder.open(_DATA, disk) as folder:
            json.dumps(list(Dump(folder, Selection()).rows()))
            return not any(finding.is_damage for finding in Verification(folder).run())
    except StorageError:
        return None


@cache
def _grown() -> dict[str, bytes]:
    """The files of a node whose checkpoint covers a part of its log."""
    disk = Disk()
    node = recover(_ALONE, disk)
    members = Config.of([Member("n1", "n1", 1, incarnation=node.folder.incarnation)])
    entries = [MEMBERS + encode_config(members), COMMAND + _created()]
    entries += [COMMAND + encode_commands([Applied().batch(value)]) for value in _VALUES]
    for index, payload in enumerate(entries, 1):
        node.wal.append(index, 1, payload)
        if index % 5 == 0:
            _flush(node.wal)
    _flush(node.wal)
    node.machine.settle(1, members)
    node.machine.apply(1, 1, None)
    for index, payload in enumerate(entries[1:_COVERED], 2):
        node.machine.apply(index, 1, memoryview(payload)[1:])
    _checkpoint(disk, node)
    node.close()
    return {path: disk.get(path) for path in _files(disk, _DATA)}


def _created() -> bytes:
    return encode_commands([CreateStream("s", {"segment.bytes": 700}, 1)])


def _flush(wal: Wal) -> None:
    flush = wal.begin_flush()
    if flush is not None:
        flush.run()
        wal.end_flush(flush)


def _checkpoint(disk: Disk, node: Recovered) -> None:
    machine, files = node.machine, node.stream_files
    for stream in machine.created:
        files.create(stream.id)
    taken = machine.take_unwritten()
    files.write(taken)
    machine.written(taken)
    sections = snapshot.Snapshot(machine).sections(files.sync())
    checkpoint.save(disk, node.folder.path, sections)


def _files(disk: Disk, folder: str) -> list[str]:
    found = []
    for path in disk.files_in(folder):
        name = path.rpartition("/")[2]
        is_folder = name in ("wal", "streams") or (path.count("/streams/") == 1 and name.isdigit())
        found += _files(disk, path) if is_folder else [path]
    return found


def _damage(disk: Disk, choices: Choices) -> None:
    path = choices.pick(_files(disk, _DATA))
    content = disk.get(path)
    match choices.below(5):
        case 0 if content:
            disk.put(path, flipped(content, choices.below(8 * len(content))))
        case 1:
            disk.put(path, edited(content, choices))
        case 2:
            disk.put(path, content[: choices.below(len(content) + 1)])
        case 3:
            disk.put(path, content + choices.binary())
        case 4:
            disk.remove(path)


def _check(node: Recovered, *, is_whole: bool) -> None:
    """The node starts with the state it had, or with none; what it serves was written.

    If nothing was found damaged, it serves everything.
    """
    assert node.machine.applied_index in (0, _COVERED)
    if node.machine.applied_index:
        assert node.machine.streams["s"].next_offset == _COVERED - 2
        _check_reads(node, is_whole=is_whole)
    assert node.machine.applied_index <= node.wal.last_index <= _LAST


def _check_reads(node: Recovered, *, is_whole: bool) -> None:
    for offset in range(_COVERED - 2):
        try:
            batches = node.stream_files.read(1, offset, 1)
        except DamagedBatch:
            assert not is_whole, "found sound, and cannot be read"
            continue
        (record,) = batches[0].records()
        assert (record.offset, record.value) == (offset, _VALUES[offset])
