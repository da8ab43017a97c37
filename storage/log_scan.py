"""The batches of a log whose files nobody has open, in order, each checked against the last.

Where a `Log` checks what a reader asks for, this checks everything: checksums, offsets without a
gap, the chain of digests, and that the index points at batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .batch import CHAIN_START, Batch
from .errors import CorruptBatch
from .filesystem import FileSystem
from .findings import Finding
from .index import read_entries
from .log_state import Compacted
from .store import Store

_CHUNK_BYTES = 1024 * 1024


class Part(NamedTuple):
    """The first `end - start` bytes of a file, which are a segment's bytes [start, end)."""

    path: str
    start: int
    end: int


class PlacedBatch(NamedTuple):
    path: str
    position: int
    """In the segment."""
    batch: Batch


class LogScan:
    """One pass over a log's segments, ascending."""

    def __init__(self, files: FileSystem) -> None:
        self.next_offset: int | None = None
        """Where the next batch has to begin; None if that is not known."""
        self.digest: bytes | None = None
        """Of the newest batch; None if that is not known."""
        self._files = files

    def segment(
        self,
        base_offset: int,
        parts: Sequence[Part],
        *,
        vouched: int,
        seam: Compacted | None = None,
    ) -> Iterator[PlacedBatch | Finding]:
        """Yield the batches of the next segment, up to the first that is bad.

        What is bad at a position below `vouched` is damage, behind that what a crash leaves. Of a
        segment that compaction made, `seam` says what the batch behind it carries.
        """
        if self.next_offset not in (None, base_offset):
            reason = f"the segment begins where offset {self.next_offset} is due"
            yield self._lost(parts[0].path, 0, reason, is_damage=vouched > 0)
        if self.next_offset is None:
            self.digest = CHAIN_START if base_offset == 0 else None
        self.next_offset = base_offset
        for part in parts:
            try:
                yield from self._part(part)
            except CorruptBatch as error:
                is_damage = part.start + error.position < vouched
                yield self._lost(part.path, error.position, error.reason, is_damage=is_damage)
                return
        if seam is None:
            return
        if self.digest != seam.digest:
            reason = "its last batch is not what compaction made"
            yield self._lost(parts[-1].path, parts[-1].start, reason, is_damage=vouched > 0)
        else:
            self.digest = seam.bridge

    def continuation(self, part: Part) -> Iterator[PlacedBatch | Finding]:
        """Yield the batches of a file that begins in the middle of a segment; nobody vouches."""
        self.next_offset = self.digest = None
        try:
            yield from self._part(part)
        except CorruptBatch as error:
            yield self._lost(part.path, error.position, error.reason, is_damage=False)

    def _part(self, part: Part) -> Iterator[PlacedBatch]:
        length = part.end - part.start
        if not length:
            return
        if not self._files.exists(part.path):
            raise CorruptBatch(part.path, 0, f"the file is missing; it should have {length} bytes")
        file = self._files.open(part.path)
        store = Store(part.path, file, min(file.size(), length), is_dirty=False, is_vouched=True)
        try:
            position = 0
            for batches in store.scan(0, _CHUNK_BYTES):
                for batch in batches:
                    self._step(batch, part.path, position)
                    yield PlacedBatch(part.path, part.start + position, batch)
                    position += batch.size
            if store.size < length:
                reason = f"the file ends here; it should have {length} bytes"
                raise CorruptBatch(part.path, store.size, reason)
        finally:
            store.close()

    def _step(self, batch: Batch, path: str, position: int) -> None:
        if self.next_offset not in (None, batch.base_offset):
            reason = f"base offset {batch.base_offset} where {self.next_offset} is due"
            raise CorruptBatch(path, position, reason)
        if self.digest not in (None, batch.chain):
            raise CorruptBatch(path, position, "it does not continue the chain of digests")
        self.next_offset, self.digest = batch.next_offset, batch.digest()

    def _lost(self, path: str, position: int, reason: str, *, is_damage: bool) -> Finding:
        offset, self.next_offset, self.digest = self.next_offset, None, None
        return Finding(path, position, reason, is_damage=is_damage, offset=offset)


class IndexCheck:
    """An index file beside the batches of its segment, which are shown to it in order."""

    def __init__(self, files: FileSystem, path: str, base_offset: int) -> None:
        """A file that is missing is no fault: an index is derived, and made when it is needed."""
        self.path = path
        self.fault: str | None = None
        """Why it does not fit."""
        self.position = 0
        """Where in the file."""
        self._base_offset = base_offset
        self._number = 0
        try:
            self._entries = read_entries(files, path) if files.exists(path) else []
        except ValueError as error:
            self._entries, self.fault = [], str(error)

    def show(self, placed: PlacedBatch) -> None:
        if self._number == len(self._entries) or self.fault is not None:
            return
        offset, position = self._entries[self._number]
        if position > placed.position:
            return
        if (position, offset) == (
            placed.position,
            placed.batch.base_offset - self._base_offset,
        ):
            self._number += 1
            return
        self.fault = f"an entry for offset {self._base_offset + offset} at byte {position}"
        self.fault += " of the store, where no such batch begins"
        self.position = 8 * self._number

    def end(self) -> None:
        """All batches were shown: what is left points behind them."""
        if self._number < len(self._entries) and self.fault is None:
            self.fault = "an entry points behind the end of the store"
            self.position = 8 * self._number
