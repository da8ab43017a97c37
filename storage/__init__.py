"""Batches on one node's disk: synchronous, one writer, no network, no Raft.

`Log` with `LogConfig`, `Record` and the errors is a library by itself: `README.md` shows it.
Read from the bottom: `filesystem` (the disk), `record` and `batch` (the bytes), `store` and `index`
(the files), `segment`, `log`; beside them `wal` (the Raft journal), `checkpoint` and `folder` (a
node's data). `DESIGN.md` draws the formats and gives the reasons.
"""

from __future__ import annotations

from .batch import BATCH_BYTES_MAX, BATCH_HEADER_SIZE, Batch, build_batch, parse_batch
from .errors import (
    BadCopy,
    CorruptBatch,
    Damaged,
    DamagedBatch,
    FolderLocked,
    IncompleteBatch,
    OffsetOutOfRange,
    Poisoned,
    StorageError,
    WrongFormat,
)
from .filesystem import OS_FILES, File, FileSystem
from .folder import DataFolder
from .log import Log, LogConfig, LogState
from .record import Record, StoredRecord, decode_records, encode_records, record_size
from .wal import Entry, Wal

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_HEADER_SIZE",
    "OS_FILES",
    "BadCopy",
    "Batch",
    "CorruptBatch",
    "Damaged",
    "DamagedBatch",
    "DataFolder",
    "Entry",
    "File",
    "FileSystem",
    "FolderLocked",
    "IncompleteBatch",
    "Log",
    "LogConfig",
    "LogState",
    "OffsetOutOfRange",
    "Poisoned",
    "Record",
    "StorageError",
    "StoredRecord",
    "Wal",
    "WrongFormat",
    "build_batch",
    "decode_records",
    "encode_records",
    "parse_batch",
    "record_size",
]
