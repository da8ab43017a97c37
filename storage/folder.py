"""A node's data folder.

    lock         held as long as the node runs
    format       "cute-logger 1"
    node         whose data this is, see node_mark.py
    checkpoint   see checkpoint.py
    wal/         the write-ahead log's segments
    streams/     a folder per stream: its 10-digit number
    *.damaged    what was set aside; removed once the data was fetched anew

A folder with another format or of another node, or with data and without those marks, is refused: a
node under another name would vote twice, and another format would read as nonsense. The incarnation
is drawn when the folder is made, and again when its data is set aside: a node that lost what it had
promised is told from the one that promised.
"""

from __future__ import annotations

import logging
import posixpath
import re
import secrets
from types import TracebackType

import msgspec

from .errors import Damaged, WrongFormat
from .filesystem import OS_FILES, FileSystem, Lock
from .node_mark import FORMAT, MARK_BYTES_MAX, NodeMark, decode_mark, encode_mark

_logger = logging.getLogger(__name__)

FORMAT_TEXT = b"cute-logger %d\n" % FORMAT
_ANY_FORMAT = re.compile(rb"cute-logger \d+\n")
LOCK_NAME = "lock"
FORMAT_NAME = "format"
NODE_NAME = "node"
_DATA_FOLDERS = ("wal", "streams")
_DATA_NAMES = ("checkpoint", "checkpoint.fetching", "checkpoint.fetched", *_DATA_FOLDERS)
ASIDE_SUFFIX = ".damaged"
_TEMPORARY_SUFFIX = ".tmp"
_HARMLESS_NAMES = frozenset({LOCK_NAME, NODE_NAME, "lost+found"})
"""What a folder may hold before it is anybody's; the last one is in the root of every ext4 disk."""


class DataFolder:
    """A data folder that this process holds the lock of, until `close`."""

    def __init__(self, path: str, files: FileSystem, lock: Lock, mark: NodeMark) -> None:
        """Used by `open`."""
        self.path = path
        self.wal_folder = f"{path}/wal"
        self.streams_folder = f"{path}/streams"
        self._files = files
        self._lock = lock
        self._mark = mark

    @classmethod
    def open(cls, path: str, node_id: str, files: FileSystem = OS_FILES) -> DataFolder:
        """Take the folder `path` for node `node_id`; a new or empty one becomes its own for good.

        Raises FolderLocked if anybody has it, WrongFormat if it is another version's, another
        node's or no data folder at all, Damaged if it does not say whose it is, OSError.
        """
        path = posixpath.normpath(path)
        files.make_folder(path)
        files.sync_folder(posixpath.dirname(path) or ".")
        lock = files.lock(f"{path}/{LOCK_NAME}")
        try:
            folder = cls(path, files, lock, _check_or_claim(files, path, node_id))
            if folder._mark.is_moving:
                folder._move_aside()
            files.make_folder(folder.wal_folder)
            files.make_folder(folder.streams_folder)
            files.sync_folder(path)
        except BaseException:
            lock.close()
            raise
        return folder

    @property
    def node_id(self) -> str:
        return self._mark.id

    @property
    def incarnation(self) -> str:
        """Random; tells this folder's data from all that this node or another one ever had."""
        return self._mark.incarnation

    @property
    def cluster_id(self) -> str | None:
        """The cluster this node belongs to, once that is known."""
        return self._mark.cluster_id

    @property
    def is_repairing(self) -> bool:
        """Damaged data was set aside, and `end_repair` not called since."""
        return self._mark.is_repairing

    def stream_folder(self, number: int) -> str:
        """Return the path of the folder of stream `number`; this creates nothing."""
        return f"{self.streams_folder}/{number:010d}"

    def keep_cluster_id(self, cluster_id: str) -> None:
        """Note durably which cluster this node belongs to. Blocks; raises OSError."""
        self._change(cluster_id=cluster_id)

    def end_repair(self) -> None:
        """What is here now is whole: give up what was set aside. Blocks; raises OSError."""
        for name in _DATA_NAMES:
            self._remove(name + ASIDE_SUFFIX)
        self._files.sync_folder(self.path)
        self._change(is_repairing=False)

    def _move_aside(self) -> None:
        """May be repeated after a crash."""
        for name in _DATA_NAMES:
            if self._mark.is_incomplete:
                self._remove(name)
            elif self._files.exists(f"{self.path}/{name}"):
                path = f"{self.path}/{name}"
                self._files.rename(path, path + ASIDE_SUFFIX)
        self._files.sync_folder(self.path)
        self._change(is_moving=False)

    def _remove(self, name: str) -> None:
        path = f"{self.path}/{name}"
        if not self._files.exists(path):
            return
        if name.removesuffix(ASIDE_SUFFIX) in _DATA_FOLDERS:
            self._files.remove_folder(path)
        else:
            self._files.remove(path)

    def _change(self, **fields: str | bool) -> None:
        self._mark = msgspec.structs.replace(self._mark, **fields)
        _write_mark(self._files, self.path, self._mark)

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def set_aside(path: str, node_id: str, files: FileSystem = OS_FILES) -> None:
    """Move the damaged data in the folder out of the way, for a node that begins anew.

    From the first step on the folder has another incarnation: nobody takes the node for the one
    that had the data. Nothing is lost: `*.damaged` stays until the node has fetched everything.
    Blocks; raises FolderLocked, WrongFormat, OSError.
    """
    path = posixpath.normpath(path)
    lock = files.lock(f"{path}/{LOCK_NAME}")
    try:
        mark = NodeMark(
            id=node_id,
            incarnation=_new_incarnation(),
            cluster_id=_cluster_id(files, path, node_id),
            is_moving=True,
            is_repairing=True,
            is_incomplete=any(name.endswith(ASIDE_SUFFIX) for name in files.listdir(path)),
        )
        _write_mark(files, path, mark)
    finally:
        lock.close()
    DataFolder.open(path, node_id, files).close()


def _new_incarnation() -> str:
    return secrets.token_hex(8)


def _cluster_id(files: FileSystem, path: str, node_id: str) -> str | None:
    try:
        return _check_or_claim(files, path, node_id).cluster_id
    except Damaged:
        return None


def _check_or_claim(files: FileSystem, path: str, node_id: str) -> NodeMark:
    """Compare the folder's marks; write them, the format last, if it holds nothing else."""
    if not files.exists(f"{path}/{FORMAT_NAME}"):
        _check_empty(files, path)
        mark = NodeMark(id=node_id, incarnation=_new_incarnation())
        _write_mark(files, path, mark)
        _write(files, f"{path}/{FORMAT_NAME}", FORMAT_TEXT)
        return mark
    try:
        mark = decode_mark(read_small(files, f"{path}/{NODE_NAME}"))
    except (ValueError, FileNotFoundError, RecursionError) as error:
        check_format(files, path)
        reason = f"it does not say whose data this is: {error}"
        raise Damaged(f"{path}/{NODE_NAME}", 0, reason) from None
    if mark.format != FORMAT:
        raise WrongFormat(path, f"its format is {mark.format}, this version reads {FORMAT}")
    if mark.id != node_id:
        raise WrongFormat(path, f'it belongs to node "{mark.id}", this one is "{node_id}"')
    if read_small(files, f"{path}/{FORMAT_NAME}") != FORMAT_TEXT:
        _logger.warning("the format's name was damaged, writes it anew", extra={"path": path})
        _write(files, f"{path}/{FORMAT_NAME}", FORMAT_TEXT)
    return mark


def check_format(files: FileSystem, path: str) -> None:
    """Raises WrongFormat, or Damaged where what is no format at all lies beside our own folders."""
    found = read_small(files, f"{path}/{FORMAT_NAME}")
    if found != FORMAT_TEXT:
        is_ours = all(files.exists(f"{path}/{name}") for name in _DATA_FOLDERS)
        if is_ours and not _ANY_FORMAT.fullmatch(found):
            raise Damaged(f"{path}/{FORMAT_NAME}", 0, "it does not say the format")
        text = found.decode("utf-8", "replace").strip()
        wanted = FORMAT_TEXT.decode().strip()
        raise WrongFormat(path, f'its format is "{text}", this version reads "{wanted}"')


def _check_empty(files: FileSystem, path: str) -> None:
    for name in files.listdir(path):
        if name not in _HARMLESS_NAMES and not name.endswith(_TEMPORARY_SUFFIX):
            raise WrongFormat(path, f'it holds "{name}" but does not say its format')


def read_small(files: FileSystem, path: str) -> bytes:
    file = files.open(path)
    try:
        return file.read_at(0, MARK_BYTES_MAX)
    finally:
        file.close()


def _write_mark(files: FileSystem, path: str, mark: NodeMark) -> None:
    _write(files, f"{path}/{NODE_NAME}", encode_mark(mark))


def _write(files: FileSystem, path: str, content: bytes) -> None:
    """Create or replace a file, durable on return."""
    temporary = path + _TEMPORARY_SUFFIX
    if files.exists(temporary):
        files.remove(temporary)
    file = files.open(temporary, create=True)
    try:
        file.write_at(0, [content])
        file.sync()
    finally:
        file.close()
    files.rename(temporary, path)
    files.sync_folder(posixpath.dirname(path))
