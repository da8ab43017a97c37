"""Bits that rot on simulated disks: in segments, also of nodes that are down, and in their indexes.

Each byte stays right on a majority of the nodes, and so does all around it: what a node has lost
another one still has. All must be right again in the end, without anybody's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from ...storage.batch import parse_batch
from ...storage.errors import CorruptBatch
from ...storage.names import generation_of, parse_stem
from .inodes import FileNode
from .node import DATA, SimNode
from .world import World

APART_BYTES = 16 << 10
"""So far apart are the bytes that rot on two nodes, at least: no batch is larger here."""
RUN_BYTES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Struck:
    """Where a segment of one node was garbled."""

    node: SimNode
    path: str
    position: int

    def is_rotten(self, *, synced_too: bool) -> bool:
        """Is there still damage in this file, or may a power loss bring it back?"""
        file = self.node.disk.find_file(self.path)
        if file is None:
            return False
        now, synced = file.contents()
        return not (_is_sound(now) and (_is_sound(synced) or not synced_too))

    def is_wanted(self) -> bool:
        """Does a process still hold the segment? A stream that was deleted and a segment that was
        trimmed away leave their files for a while.
        """
        process = self.node.process
        if process is None:
            return True
        folder, _, name = self.path.rpartition("/")
        stream_id, segment = int(folder.rpartition("/")[2]), parse_stem(name.removesuffix(".log"))
        assert segment is not None
        files = process.recovered.stream_files
        return files.generation_at(stream_id, segment.base_offset) == segment.generation

    def is_near(self, path: str, position: int) -> bool:
        """Could the bytes there be needed to mend these? Compaction makes others of them."""
        if self.path == path:
            return abs(self.position - position) < APART_BYTES
        is_same_stream = self.path.rpartition("/")[0] == path.rpartition("/")[0]
        return is_same_stream and generation_of(self.path) + generation_of(path) > 0


class Rot:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._struck: list[Struck] = []

    def strike_segment(self, node: SimNode) -> None:
        """Garble some durable bytes of a segment."""
        place = self._place(node, ".log")
        if place is None:
            return
        path, file, position = place
        self._struck = [each for each in self._struck if each.is_rotten(synced_too=True)]
        if any(each.node is not node and each.is_near(path, position) for each in self._struck):
            return
        count = self._rng.choice((1, 1, 100, RUN_BYTES_MAX))
        file.rot(position, noise(self._rng, count))
        self._struck.append(Struck(node, path, position))
        self._world.trace.add(f"{count} bytes rot at {position} of {node.id}{path}")

    def strike_index(self, node: SimNode) -> None:
        place = self._place(node, ".index")
        if place is not None:
            path, file, position = place
            file.rot(position, noise(self._rng, self._rng.choice((1, 8, 100))))
            self._world.trace.add(f"an index rots at {position} of {node.id}{path}")

    def is_mended(self) -> bool:
        return not any(self._rotten())

    def describe(self) -> Iterator[str]:
        """Say what is still rotten."""
        for each in self._rotten():
            yield f"{each.node.id}{each.path} is rotten, was struck at {each.position}"

    def _rotten(self) -> Iterator[Struck]:
        for each in self._struck:
            if each.is_rotten(synced_too=False) and each.is_wanted():
                yield each

    def _place(self, node: SimNode, suffix: str) -> tuple[str, FileNode, int] | None:
        files = node.disk.files_below(f"{DATA}/streams")
        found = [(path, file) for path, file in files if path.endswith(suffix) and file.still_size]
        if not found:
            return None
        path, file = self._rng.choice(found)
        return path, file, self._rng.randrange(file.still_size)


def noise(rng: Random, count: int) -> bytes:
    """What to flip: one bit of a single byte, or every byte."""
    if count == 1:
        return bytes([1 << rng.randrange(8)])
    return bytes(rng.randrange(1, 256) for _ in range(count))


def _is_sound(segment: bytes) -> bool:
    position = 0
    try:
        while position < len(segment):
            position += parse_batch(segment, position).size
    except CorruptBatch:
        return False
    return True
