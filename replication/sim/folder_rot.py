"""Bits that rot in what a node knows itself by: its log, its checkpoint, its marks.

A node cannot mend these from what others hold byte for byte: it has to notice, and either take what
it has in memory, or come back as one with an empty disk. Where rot cannot be told from a torn
write, at the very end of the log, nothing is struck.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ...storage import checkpoint
from ...storage.errors import Damaged
from ...storage.wal_frame import FrameReader, read_seed
from .inodes import FileNode
from .node import DATA, SimNode
from .rot import noise
from .world import World

CHECKPOINT = f"{DATA}/checkpoint"


@dataclass(frozen=True, slots=True)
class StruckFolder:
    node: SimNode
    life: int
    """The newest that began before the blow."""


class FolderRot:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._struck: list[StruckFolder] = []

    def endangered(self) -> set[str]:
        """The nodes that may still find out what they have lost."""
        self._struck = [each for each in self._struck if not _has_recovered(each)]
        return {each.node.id for each in self._struck}

    def strike_log(self, node: SimNode) -> None:
        """Of a node that is down: bytes that the log itself calls durable."""
        files = node.disk.files_below(f"{DATA}/wal")
        found = [(path, file) for path, file in files if path.endswith(".wal") and file.still_size]
        if not found:
            return
        path, file = self._rng.choice(found)
        end = file.still_size if path != files[-1][0] else _vouched_bytes(node, path, file)
        if end:
            self._strike(node, path, file, end)

    def strike_checkpoint(self, node: SimNode) -> None:
        """Also of a node that runs."""
        self._strike_name(node, CHECKPOINT)

    def strike_mark(self, node: SimNode) -> None:
        self._strike_name(node, f"{DATA}/{self._rng.choice(('node', 'format'))}")

    def is_mended(self) -> bool:
        return not any(map(_has_bad_checkpoint, self._world.nodes.values()))

    def _strike_name(self, node: SimNode, path: str) -> None:
        file = node.disk.find_file(path)
        if file is not None and file.still_size:
            self._strike(node, path, file, file.still_size)

    def _strike(self, node: SimNode, path: str, file: FileNode, end: int) -> None:
        position = self._rng.randrange(end)
        count = min(self._rng.choice((1, 1, 30, 1000)), end - position)
        file.rot(position, noise(self._rng, count))
        self._struck.append(StruckFolder(node, node.life))
        self._world.trace.add(f"{count} bytes rot at {position} of {node.id}{path}")


def _has_recovered(struck: StruckFolder) -> bool:
    """What the folder says was read since, by a start that came to its end."""
    return struck.node.process is not None and struck.node.life > struck.life


def _vouched_bytes(node: SimNode, path: str, file: FileNode) -> int:
    """So much of the newest log file is durable by the word of a frame behind it."""
    disk = node.disk.synced_only(without="streams")
    opened = disk.open(path)
    reader = FrameReader(opened, read_seed(opened), position=0)
    vouched = 0
    while reader.position < file.still_size and reader.next() is not None:
        if reader.position <= file.still_size:
            vouched = reader.vouched
    return vouched


def _has_bad_checkpoint(node: SimNode) -> bool:
    if node.process is None or not node.disk.find_file(CHECKPOINT):
        return False
    node.disk.is_usable = True
    try:
        checkpoint.read(node.disk, CHECKPOINT)
    except Damaged:
        return True
    finally:
        node.disk.is_usable = False
    return False
