"""From a data folder to a state: what the checkpoint holds, and the log after it."""

from __future__ import annotations

import logging
from typing import NamedTuple

from ..storage import checkpoint
from ..storage.filesystem import FileSystem
from ..storage.folder import DataFolder
from ..storage.wal import Wal
from . import snapshot
from .config import ReplicaConfig
from .install import finish_install, is_fetching
from .machine import StateMachine
from .recent import Recent
from .stream_files import StreamFiles

logger = logging.getLogger(__name__)


class Recovered(NamedTuple):
    folder: DataFolder
    machine: StateMachine
    stream_files: StreamFiles
    wal: Wal

    def close(self) -> None:
        self.stream_files.close()
        self.wal.close()
        self.folder.close()


def recover(config: ReplicaConfig, files: FileSystem) -> Recovered:
    """Lock and open the data folder. Blocks; raises StorageError or OSError.

    Entries after the checkpoint are applied again once a leader says that they are committed.
    """
    folder = DataFolder.open(config.data, config.id, files=files)
    try:
        return _recover(config, folder, files)
    except BaseException:
        folder.close()
        raise


def _recover(config: ReplicaConfig, folder: DataFolder, files: FileSystem) -> Recovered:
    limits = config.limits
    machine = StateMachine(Recent(limits.recent_bytes), limits.unwritten_bytes)
    finish_install(files, folder)
    sections = checkpoint.load(files, folder.path)
    states = snapshot.restore(sections, machine) if sections is not None else {}
    streams = StreamFiles(folder, files)
    streams.open(states, keeps_others=is_fetching(files, folder))
    wal = Wal.open(
        folder.wal_folder,
        files=files,
        after=machine.applied_index,
        after_term=machine.applied_term,
        segment_bytes_max=limits.wal_segment_bytes,
        cache_bytes_max=limits.wal_cache_bytes,
    )
    logger.info(
        "recovered",
        extra={
            "applied_index": machine.applied_index,
            "last_index": wal.last_index,
            "streams": len(machine.streams),
        },
    )
    return Recovered(folder, machine, streams, wal)
