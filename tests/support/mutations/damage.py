"""Deliberate bugs in what repairs damaged files."""

from __future__ import annotations

import pytest
from crc32c import crc32c

from cute_logger.replication.scrub import Scrub
from cute_logger.replication.stream_files import StreamFiles
from cute_logger.storage import store
from cute_logger.storage.batch import Batch, batch_size, parse_batch

from .registry import mutation


@mutation("nobody helps with damaged bytes", "StreamFiles.copy", "rot")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamFiles, "copy", lambda self, stream_id, offset, bytes_max: None)


@mutation("damage that nobody reads is not looked for", "Scrub.poll", "rot")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scrub, "poll", lambda self, now: None)


@mutation("checksums are not checked", "store.parse_batch", "rot")
def _(patch: pytest.MonkeyPatch) -> None:
    def parse(buffer: memoryview, position: int = 0) -> Batch:
        data = bytearray(buffer[position : position + batch_size(buffer, position)])
        data[:4] = crc32c(bytes(data[4:])).to_bytes(4, "little")
        return parse_batch(data)

    patch.setattr(store, "parse_batch", parse)
