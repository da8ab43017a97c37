"""A node's data folder.

    lock         held as long as the node runs
    format       "cute-logger 1"
    node         {"id": …, "incarnation": …, "cluster_id": …}: whose data this is
    checkpoint   see checkpoint.py
    wal/         the write-ahead log's segments
    streams/     a folder per stream: its 10-digit number

A folder with another format or of another node, or with data and without those marks, is refused: a
node under another name would vote twice, and another format would read as nonsense. The incarnation
is drawn when the folder is made: a node whose disk was lost is told from the one that had it.
"""

from __future__ import annotations

import json
import posixpath
import secrets
from types import TracebackType

from .errors import WrongFormat
from .filesystem import OS_FILES, FileSystem, Lock

_FORMAT = b"cute-logger 1\n"
_LOCK = "lock"
_FORMAT_NAME = "format"
_NODE_NAME = "node"
_TEMPORARY_SUFFIX = ".tmp"
_HARMLESS_NAMES = frozenset({_LOCK, _NODE_NAME, "lost+found"})
"""What a folder may hold before it is anybody's; the last one is in the root of every ext4 disk."""

_NAME_BYTES_MAX = 4096


class DataFolder:
    """A data folder that this process holds the lock of, until `close`."""

    def __init__(self, path: str, files: FileSystem, lock: Lock) -> None:
        """Used by `open`."""
        self.path = path
        self.wal_folder = f"{path}/wal"
        self.streams_folder = f"{path}/streams"
        self.incarnation = ""
        """Random; tells this folder from every other one."""
        self.cluster_id: str | None = None
        """The cluster this node belongs to, once that is known."""
        self._node_id = ""
        self._files = files
        self._lock = lock

    @classmethod
    def open(cls, path: str, node_id: str, files: FileSystem = OS_FILES) -> DataFolder:
        """Take the folder `path` for node `node_id`; a new or empty one becomes its own for good.

        Raises FolderLocked if anybody has it, WrongFormat if it is another version's, another
        node's or no data folder at all, OSError.
        """
        path = posixpath.normpath(path)
        files.make_folder(path)
        files.sync_folder(posixpath.dirname(path) or ".")
        folder = cls(path, files, files.lock(f"{path}/{_LOCK}"))
        try:
            folder._check_or_claim(node_id)
            files.make_folder(folder.wal_folder)
            files.make_folder(folder.streams_folder)
            files.sync_folder(path)
        except BaseException:
            folder.close()
            raise
        return folder

    def stream_folder(self, number: int) -> str:
        """Return the path of the folder of stream `number`; this creates nothing."""
        return f"{self.streams_folder}/{number:010d}"

    def keep_cluster_id(self, cluster_id: str) -> None:
        """Note durably which cluster this node belongs to. Blocks; raises OSError."""
        self.cluster_id = cluster_id
        self._write_node()

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

    def _check_or_claim(self, node_id: str) -> None:
        """Compare the folder's marks; write them, the format last, if it holds nothing else."""
        self._node_id = node_id
        if not self._files.exists(f"{self.path}/{_FORMAT_NAME}"):
            self._check_empty()
            self.incarnation = secrets.token_hex(8)
            self._write_node()
            self._write(_FORMAT_NAME, _FORMAT)
            return
        found = self._read(_FORMAT_NAME)
        if found != _FORMAT:
            text = found.decode("utf-8", "replace").strip()
            wanted = _FORMAT.decode().strip()
            raise WrongFormat(self.path, f'its format is "{text}", this version reads "{wanted}"')
        node = self._read_node()
        if node["id"] != node_id:
            reason = f'it belongs to node "{node["id"]}", this one is "{node_id}"'
            raise WrongFormat(self.path, reason)
        self.incarnation, self.cluster_id = node.get("incarnation") or "", node.get("cluster_id")
        if not self.incarnation:
            self.incarnation = secrets.token_hex(8)
            self._write_node()

    def _check_empty(self) -> None:
        for name in self._files.listdir(self.path):
            if name not in _HARMLESS_NAMES and not name.endswith(_TEMPORARY_SUFFIX):
                raise WrongFormat(self.path, f'it holds "{name}" but does not say its format')

    def _read_node(self) -> dict[str, str | None]:
        try:
            node = json.loads(self._read(_NODE_NAME))
        except (ValueError, FileNotFoundError, RecursionError) as error:
            raise WrongFormat(self.path, f"it does not say whose it is: {error}") from None
        if not isinstance(node, dict) or not isinstance(node.get("id"), str):
            raise WrongFormat(self.path, "it does not say whose it is: there is no id")
        return node

    def _write_node(self) -> None:
        node = {"id": self._node_id, "incarnation": self.incarnation}
        if self.cluster_id is not None:
            node["cluster_id"] = self.cluster_id
        self._write(_NODE_NAME, json.dumps(node).encode() + b"\n")

    def _read(self, name: str) -> bytes:
        file = self._files.open(f"{self.path}/{name}")
        try:
            return file.read_at(0, _NAME_BYTES_MAX)
        finally:
            file.close()

    def _write(self, name: str, content: bytes) -> None:
        """Create or replace the file `name`, durable on return."""
        temporary = f"{self.path}/{name}{_TEMPORARY_SUFFIX}"
        if self._files.exists(temporary):
            self._files.remove(temporary)
        file = self._files.open(temporary, create=True)
        try:
            file.write_at(0, [content])
            file.sync()
        finally:
            file.close()
        self._files.rename(temporary, f"{self.path}/{name}")
        self._files.sync_folder(self.path)
