"""From a data folder to a state: what the checkpoint holds, and the log after it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import NamedTuple

from ..storage import checkpoint
from ..storage.errors import Damaged
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder, set_aside
from ..storage.wal import Wal
from . import snapshot
from .config import ReplicaConfig
from .index_files import IndexFiles
from .install import finish_install, is_fetching
from .machine import StateMachine
from .members import Config, Member, Members, decode_config
from .recent import Recent
from .stream_files import StreamFiles
from .upstream import MEMBERS

logger = logging.getLogger(__name__)

_SCAN_BYTES = 1 << 20


class Recovered(NamedTuple):
    folder: DataFolder
    machine: StateMachine
    stream_files: StreamFiles
    wal: Wal
    members: Members
    index_files: IndexFiles

    def close(self) -> None:
        self.index_files.close()
        self.stream_files.close()
        self.wal.close()
        self.folder.close()


def recover(config: ReplicaConfig, files: FileSystem) -> Recovered:
    """Lock and open the data folder. Blocks; raises StorageError or OSError.

    Entries after the checkpoint are applied again once a leader says that they are committed.

    What cannot be read is set aside if there are others to fetch it from: the node comes back as
    one with an empty disk would, by another incarnation, and does not vote on what it lost.
    """
    try:
        return _open(config, files)
    except Damaged as damage:
        if not config.peers:
            raise
        logger.error(
            "the data is damaged: sets it aside, to fetch it anew",
            extra={"path": damage.path, "position": damage.position, "reason": damage.reason},
        )
    set_aside(config.data, config.id, files)
    return _open(config, files)


def _open(config: ReplicaConfig, files: FileSystem) -> Recovered:
    with ExitStack() as opened:
        folder = opened.enter_context(DataFolder.open(config.data, config.id, files=files))
        streams = opened.enter_context(StreamFiles(folder, files))
        recovered = _recover(config, folder, streams, files)
        opened.pop_all()
    return recovered


def _recover(
    config: ReplicaConfig, folder: DataFolder, streams: StreamFiles, files: FileSystem
) -> Recovered:
    limits = config.limits
    machine = StateMachine(Recent(limits.cache_bytes), limits.unwritten_bytes)
    finish_install(files, folder)
    sections = checkpoint.load(files, folder.path)
    states = snapshot.restore(sections, machine) if sections is not None else {}
    streams.open(states, keeps_others=is_fetching(files, folder))
    wal = Wal.open(
        folder.wal_folder,
        files=files,
        after=machine.applied_index,
        after_term=machine.applied_term,
        segment_bytes_max=limits.wal_segment_bytes,
        cache_bytes_max=limits.wal_cache_bytes,
    )
    try:
        members = _members(config, folder, machine, wal)
    except BaseException:
        wal.close()
        raise
    logger.info(
        "recovered",
        extra={
            "applied_index": machine.applied_index,
            "last_index": wal.last_index,
            "streams": len(machine.streams),
        },
    )
    index_files = IndexFiles(
        config.index_folder or f"{config.data}/indexes",
        folder.incarnation,
        durable=config.index_folder is None,
    )
    return Recovered(folder, machine, streams, wal, members, index_files)


def _members(config: ReplicaConfig, folder: DataFolder, machine: StateMachine, wal: Wal) -> Members:
    """The lists of members in the checkpoint and in the log behind it, committed or not."""
    addresses = {config.id: config.address, **config.peers}
    founders = Config.of(Member(node, *address) for node, address in addresses.items())
    joins = config.joins or folder.is_repairing
    members = Members(config.id, folder.incarnation, founders, joins=joins)
    if machine.members is not None:
        members.add(machine.members_index, machine.members)
    at = machine.applied_index + 1
    while at <= wal.last_index:
        entries = wal.load(at, _SCAN_BYTES)()
        for entry in entries:
            if entry.payload[:1] == MEMBERS:
                members.add(entry.index, decode_config(entry.payload[1:]))
        at = entries[-1].index + 1
    if members.founders_differ():
        logger.warning(
            "the settings name other members than the log: the log rules",
            extra={"members": [member.id for member in members.newest.members]},
        )
    return members
