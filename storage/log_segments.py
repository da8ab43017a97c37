"""The segments of one log's folder: the sealed ones, and the one that is written.

They lie one behind the other, without a gap. What leaves the list, because it was trimmed or others
took its place, leaves its files behind until `remove_unlisted`. Which offsets can be read, and what
a failed write means, is the log's business (`log.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from .batch import CHAIN_START, Batch
from .filesystem import FileSystem
from .idle_segments import IdleSegments
from .index import RELATIVE_OFFSET_MAX
from .log_state import Compacted, LogConfig
from .names import NEW_SUFFIX, SegmentName, remove_files, segment_names, segment_paths
from .sealed import SealedSegment, SealedSegments
from .segment import Segment


class LogSegments:
    """Empty at first; `log_opening` finds what is there."""

    def __init__(
        self, folder: str, config: LogConfig, files: FileSystem, idle: IdleSegments
    ) -> None:
        self.folder = folder
        self.files = files
        self.interval_bytes = config.index_interval_bytes
        self.bytes_max = config.segment_bytes_max
        """A segment is sealed when the next batch would pass this."""
        self.sealed = SealedSegments(files, folder, config.index_interval_bytes, idle)
        self.active: Segment | None = None
        self.unsynced_max = 0
        """So many sealed segments may wait to be synced."""
        self.unsynced_folders: list[str] = []
        """Folders with names that are not durable."""
        self._has_trimmed = False
        self._replaced: set[SegmentName] = set()
        """Segments whose files may still be there, while others have taken their place."""

    @property
    def size_bytes(self) -> int:
        return self.sealed.size_bytes + (self.active.size if self.active else 0)

    @property
    def count(self) -> int:
        return len(self.sealed) + (self.active is not None)

    def extents(self) -> list[tuple[int, int]]:
        """Return (base offset, bytes) of each segment."""
        extents = self.sealed.extents()
        if self.active is not None:
            extents.append((self.active.base_offset, self.active.size))
        return extents

    def names(self) -> list[SegmentName]:
        names = [known.name for known in self.sealed.known()]
        if self.active is not None:
            names.append(SegmentName(self.active.base_offset))
        return names

    def compactable(self) -> list[SealedSegment]:
        """Return the segments that can be compacted, oldest first: all but the newest."""
        known = self.sealed.known()
        return known[:-1] if self._is_last_sealed else known

    @property
    def _is_last_sealed(self) -> bool:
        return self.active is None or not self.active.size

    def newest(self) -> Segment | None:
        """Return the segment with the newest batch, if there is a batch."""
        return self.active if self.active and self.active.size else self.sealed.last()

    def holding(self, offset: int) -> Segment:
        """Return the segment that holds `offset`; one of them does."""
        if self.active is not None and offset >= self.active.base_offset:
            return self.active
        segment = self.sealed.find(offset)
        assert segment is not None, "segments lie one behind the other"
        return segment

    def link_at(self, offset: int) -> bytes | None:
        """Return what the first batch of the segment that begins at `offset` has to carry as its
        chain; None if it is unknown.
        """
        if offset == 0:
            return CHAIN_START
        known = self.sealed.ending_at(offset)
        if known is not None and known.generation:
            return known.seam.bridge if known.seam is not None else None
        before = self.sealed.find(offset - 1)
        return before.last_digest if before is not None and before.last is not None else None

    # ---- what changes them; after an error nobody knows what is on disk

    def append(self, batches: Sequence[Batch]) -> tuple[Segment, int]:
        """Write those of `batches` that go into one segment, the active or a new one; return the
        segment and how many they are.
        """
        segment = self._segment_for(batches[0])
        count = self._fitting(segment, batches)
        segment.append(batches[:count])
        return segment, count

    def _segment_for(self, batch: Batch) -> Segment:
        """Return the segment that `batch` goes into, a new one if it would pass the limit."""
        if self.active is not None and self._fitting(self.active, [batch]):
            return self.active
        self.seal_active()
        self.note_names_changed()
        self.active = Segment.create(
            self.files, self.folder, batch.base_offset, self.interval_bytes
        )
        return self.active

    def _fitting(self, segment: Segment, batches: Sequence[Batch]) -> int:
        """Return how many of `batches` go into `segment`; one at least if it is empty."""
        size = segment.size
        for number, batch in enumerate(batches):
            is_within = size + batch.size <= self.bytes_max
            is_near = batch.base_offset - segment.base_offset <= RELATIVE_OFFSET_MAX
            if size and not (is_within and is_near):
                return number
            size += batch.size
        return len(batches)

    def seal_active(self) -> None:
        if self.active is not None:
            self.sealed.seal(self.active)
            self.active = None
            self.sealed.sync(unsynced_max=self.unsynced_max)
            if not self.unsynced_max:
                self._sync_folders()

    def note_sealed(
        self,
        names: Sequence[SegmentName],
        extents: Sequence[tuple[int, int]],
        end_offset: int,
        seams: dict[int, Compacted],
    ) -> None:
        """Take note of durable segments that were found, the last of which ends at `end_offset`."""
        next_offsets = [base for base, _ in extents[1:]] + [end_offset]
        for name, (base, size), next_offset in zip(names, extents, next_offsets, strict=False):
            segment = SealedSegment(base, next_offset, size, name.generation, seams.get(base))
            self.sealed.note(segment)

    def drop_below(self, offset: int) -> None:
        """Forget the sealed segments that end at or below `offset`, but not the newest batch."""
        if self.sealed.drop_below(offset, keeps_last=self._is_last_sealed):
            self._has_trimmed = True

    def swap(self, new: SealedSegment) -> None:
        """Give a durable segment its name, and put it in the place of those of its offsets."""
        # The store is what counts: it comes last.
        for path in reversed(segment_paths(self.folder, new.name)):
            if self.files.exists(path + NEW_SUFFIX):
                self.files.rename(path + NEW_SUFFIX, path)
        self.files.sync_folder(self.folder)
        replaced = self.sealed.replace(new)
        self._replaced.update(each.name for each in replaced)

    @property
    def has_unlisted(self) -> bool:
        """May there be files of segments that are not in the list any more?"""
        return self._has_trimmed or bool(self._replaced)

    def remove_unlisted(self) -> None:
        # Who opens the log without a checkpoint finds what is replaced by what replaced it.
        there = segment_names(self.files.listdir(self.folder))
        self.remove_others([name for name in there if name not in self._replaced])
        self._replaced.clear()
        self.remove_others(self.names())
        self._has_trimmed = False

    def remove_others(self, keep: Sequence[SegmentName]) -> None:
        """Remove the files of all segments not in `keep`."""
        if remove_files(self.files, self.folder, self.files.listdir(self.folder), keep):
            self.note_names_changed()

    def note_names_changed(self) -> None:
        if self.folder not in self.unsynced_folders:
            self.unsynced_folders.append(self.folder)

    def sync(self) -> None:
        """Make everything durable, files and their names."""
        self.sealed.sync()
        if self.active is not None:
            self.active.sync()
        self._sync_folders()

    def _sync_folders(self) -> None:
        for folder in self.unsynced_folders:
            self.files.sync_folder(folder)
        self.unsynced_folders.clear()

    def close(self) -> None:
        """Close all files, synced or not. Closing twice is allowed."""
        active, self.active = self.active, None
        try:
            self.sealed.close()
        finally:
            if active is not None:
                active.close()
