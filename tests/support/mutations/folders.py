"""Deliberate bugs in how a node takes damage to its own folder."""

from __future__ import annotations

from contextlib import suppress

import pytest

from cute_logger.replication import recovery
from cute_logger.storage import checkpoint, folder, wal_frame, wal_recovery
from cute_logger.storage.errors import Damaged
from cute_logger.storage.filesystem import FileSystem
from cute_logger.storage.folder import set_aside
from support.mutations.registry import mutation


@mutation("rot in the log is taken for a torn end", "wal_frame.find_voucher", "folders")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wal_recovery, "find_voucher", lambda file, seed, position, size: None)


@mutation("the log's checksums are not checked", "wal_frame.crc32c", "folders")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wal_frame, "crc32c", lambda data, crc=0: 0)


@mutation("the checkpoint's checksums are not checked", "checkpoint._next_crc", "folders")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "_next_crc", lambda crc, length, body: 0)


@mutation("who lost data comes back as who promised it", "folder.set_aside", "folders")
def _(patch: pytest.MonkeyPatch) -> None:
    def keep_incarnation(path: str, node_id: str, files: FileSystem) -> None:
        with pytest.MonkeyPatch.context() as inner:
            with suppress(Damaged):
                incarnation = folder._check_or_claim(files, path, node_id).incarnation
                inner.setattr(folder, "_new_incarnation", lambda: incarnation)
            set_aside(path, node_id, files)

    patch.setattr(recovery, "set_aside", keep_incarnation)
