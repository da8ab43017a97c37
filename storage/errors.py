"""Everything the storage layer raises by itself; what the disk refuses stays an `OSError`.

    StorageError
    ├── CorruptBatch         these bytes are no batch
    │   ├── IncompleteBatch  they end too early: torn, or not all read yet
    │   └── UnpacksTooLarge  their body stands for more than is allowed
    ├── Damaged              a file lacks or garbles bytes that were vouched for
    │   └── DamagedBatch     … a batch of a segment: names the offset to mend from
    ├── BadCopy              what was offered in the place of damaged batches is not that
    ├── FolderLocked         another process has the folder
    ├── WrongFormat          the folder belongs to another version or another node
    ├── OffsetOutOfRange     outside of what the log holds
    └── Poisoned             an earlier write failed; only opening anew helps

A `CorruptBatch` judges bytes, a `Damaged` judges a file: only who knows what was promised about a
file (a checkpoint, a later batch) can turn the first into the second.
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of everything the storage layer raises."""


class CorruptBatch(StorageError):
    """The bytes at `position` (of the file `path`, or of a buffer if that is None) are no batch."""

    def __init__(self, path: str | None, position: int, reason: str) -> None:
        super().__init__(f"{path or 'buffer'}, byte {position}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason


class IncompleteBatch(CorruptBatch):
    """The bytes end before the batch at `position` does; nothing that is there contradicts it."""


class UnpacksTooLarge(CorruptBatch):
    """A compressed body unpacks to more bytes than whoever asked takes."""


class Damaged(StorageError):
    """The file `path` lacks or garbles, from `position` on, bytes that were vouched for.

    Never cut such a file: what it held was promised to somebody. Repair it from another copy.
    """

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(f"{path}, byte {position}: {reason}")
        self.path = path
        self.position = position
        self.reason = reason


class DamagedBatch(Damaged):
    """The batch at `offset`, at `position` of the segment `base_offset`, cannot be read."""

    def __init__(
        self, path: str, position: int, reason: str, *, base_offset: int, offset: int
    ) -> None:
        super().__init__(path, position, reason)
        self.base_offset = base_offset
        self.offset = offset


class BadCopy(StorageError):
    """These bytes do not belong where batches are damaged; nothing was written."""


class FolderLocked(StorageError):
    """Another process holds the lock file `path`."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is locked by another process")
        self.path = path


class WrongFormat(StorageError):
    """The folder `path` was written by another version, or for another node."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class OffsetOutOfRange(StorageError):
    """`offset` is below `log_start_offset` or above `log_end_offset`."""

    def __init__(self, offset: int, log_start_offset: int, log_end_offset: int) -> None:
        super().__init__(f"offset {offset} is outside of [{log_start_offset}, {log_end_offset}]")
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class Poisoned(StorageError):
    """An earlier write or fsync of `path` failed with `cause`; what reached the disk is unknown.

    A second fsync may succeed although the first one's data was dropped (Rebello et al., "Can
    Applications Recover from fsync Failures?", USENIX ATC 2020), so nothing is retried: open anew
    and trust what reads back.
    """

    def __init__(self, path: str, cause: BaseException) -> None:
        super().__init__(f"{path}: an earlier write failed: {cause}")
        self.path = path
        self.cause = cause
