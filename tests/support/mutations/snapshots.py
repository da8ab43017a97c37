"""What makes a checkpoint, a snapshot and a trim safe; and bugs that were there, put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from cute_logger.replication import install, recovery
from cute_logger.replication.install import Held, Piece, Staging
from cute_logger.replication.persistence import Persistence
from cute_logger.replication.sim.modes import Mode
from cute_logger.replication.snapshot import Snapshot
from cute_logger.storage import checkpoint
from cute_logger.storage.filesystem import FileSystem
from cute_logger.storage.folder import DataFolder
from cute_logger.storage.store import Store
from support.mutations.files import state_of
from support.mutations.registry import mutation

STOPS_IN_THE_MIDDLE = Mode(
    "stops in the middle",
    {"power_writing": 6, "kill_writing": 1},
    fault_every_s=0.4,
    duration_s=15.0,
    readers=0,
    consumers=0,
    claimers=0,
    has_indexes=False,
    varies=False,
)


@mutation(
    "the checkpoint is saved before the segments are synced",
    "Persistence._save",
    STOPS_IN_THE_MIDDLE,
)
def _(patch: pytest.MonkeyPatch) -> None:
    def save(self: Persistence, snapshot: Snapshot, deleted: list[int]) -> bool:
        logs = self._stream_files._logs
        states = {stream_id: state_of(log) for stream_id, log in logs.items()}
        checkpoint.save(self._files, self._folder.path, snapshot.sections(states))
        self._stream_files.sync()
        self._stream_files.remove(deleted)
        return True

    patch.setattr(Persistence, "_save", save)


def trimmed_files_go_first(patch: pytest.MonkeyPatch) -> None:
    original = Persistence._save

    def save(self: Persistence, snapshot: Snapshot, deleted: list[int]) -> bool:
        self._stream_files.sync()
        self._stream_files.remove(deleted)
        return original(self, snapshot, deleted)

    patch.setattr(Persistence, "_save", save)


@mutation("a snapshot is put in place by half", "install.finish_install", "snapshots")
def put_in_place_by_half(patch: pytest.MonkeyPatch) -> None:
    def finish(files: FileSystem, folder: DataFolder) -> None:
        """The checkpoint replaces the old one before all pieces are where they belong."""
        fetched = checkpoint.path_in(folder.path) + install.FETCHED
        if files.exists(fetched):
            files.rename(fetched, checkpoint.path_in(folder.path))
            files.sync_folder(folder.path)
            for path in install._pieces(files, folder):
                install._place(files, path)

    patch.setattr(recovery, "finish_install", finish)


@mutation("a fetched snapshot is committed before it is synced", "Staging.write_piece", "snapshots")
def _(patch: pytest.MonkeyPatch) -> None:
    def write_piece(self: Staging, piece: Piece, position: int, data: bytes) -> None:
        self._files.make_folder(self._folder.stream_folder(piece.stream_id))
        self._write(self._path(piece), position - piece.start, data)
        self._sure.add(self._path(piece))

    original = Staging._verify

    def verify(self: Staging, pieces: Sequence[Piece], held: Mapping[int, Held]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Store, "sync", lambda self: None)
            original(self, pieces, held)

    patch.setattr(Staging, "write_piece", write_piece)
    patch.setattr(Staging, "_verify", verify)


def all_that_is_applied_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Persistence._forget_log

    def forget_log(self: Persistence) -> None:
        before, self._checkpoint_index = self._checkpoint_index, self._machine.applied_index
        original(self)
        self._checkpoint_index = before

    patch.setattr(Persistence, "_forget_log", forget_log)
