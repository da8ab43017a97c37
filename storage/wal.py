"""The write-ahead log: the Raft journal on disk, in segment files that are only appended to.

One thread, the loop, calls all methods; none but `open` and `close` touches the disk. What blocks
is handed out as callables (`Flush.run`, `load`, `drop_before`) for another thread to run.

    append, truncate, set_hard_state, reset    change the log in memory; wait in a buffer; `lsn`
    begin_flush → flush.run() → end_flush      one write and one fdatasync for all of that;
                                               `durable_lsn`, `durable_index`

- Truncation is a frame, not a cut: of two entries with one index the later frame counts.
- Between flushes an image of what the files say is kept; entries that are not in it are in memory.
- Memory holds the newest entries up to `cache_bytes_max` and all that is not durable yet.
- After a failed flush nothing can be flushed again (Rebello et al., "Can Applications Recover from
  fsync Failures?", USENIX ATC 2020): what reached the disk is unknown. The process has to end.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from functools import partial

from .entry_cache import EntryCache
from .errors import Damaged, Poisoned
from .filesystem import OS_FILES, FileSystem
from .term_runs import TermRuns
from .wal_cold import ColdRead
from .wal_flush import Flush
from .wal_frame import PAYLOAD_BYTES_MAX, Entry, encode_vote, frame_size
from .wal_image import Change, Entries, HardState, Image, Reset, Truncate
from .wal_locations import Locations
from .wal_recovery import Recovery
from .wal_segment import SegmentWriter, first_header, segment_path

__all__ = ["Entry", "Flush", "Wal"]

MiB = 1024 * 1024


class Wal:
    """See the module. The attributes are for reading only."""

    def __init__(
        self,
        files: FileSystem,
        folder: str,
        image: Image,
        writer: SegmentWriter,
        cache: EntryCache,
        locations: Locations,
        *,
        segment_bytes_max: int,
        cache_bytes_max: int,
    ) -> None:
        """Used by `open`."""
        self.last_index = image.last_index
        self.term = image.term
        """The current term, which may be above `last_term`."""
        self.vote = image.vote
        """Who got this node's vote in `term`; None if nobody."""
        self.lsn = 0
        """Counts the changes; only grows while the Wal is open."""
        self.durable_lsn = 0
        """The changes up to this one are durable."""
        self.durable_index = image.last_index
        """The newest entry that a finished flush wrote and that was not truncated since."""
        self.pending_bytes = 0
        """Size of what waits for a flush or is in one."""
        self._files = files
        self._folder = folder
        self._image = image
        self._writer = writer
        self._cache = cache
        self._locations = locations
        self._segment_bytes_max = segment_bytes_max
        self._cache_bytes_max = cache_bytes_max
        self._base_index = image.base_index
        self._runs = TermRuns(image.runs.runs())
        self._changes: list[Change] = []
        self._buffer_bytes = 0
        self._appending: list[Entry] = []
        self._appending_term = -1
        self._in_flight: Flush | None = None
        self._untouched_index = self.last_index
        """No entry up to this one was truncated since the flush in flight began."""

    @classmethod
    def open(
        cls,
        folder: str,
        *,
        files: FileSystem = OS_FILES,
        after: int = 0,
        after_term: int = 0,
        segment_bytes_max: int = 64 * MiB,
        cache_bytes_max: int = 16 * MiB,
    ) -> Wal:
        """Open or create the log in `folder`, whose entries up to `after` a checkpoint covers.

        Cuts off a torn end. A log that ends below `after`, or has another term there than
        `after_term`, is older than the checkpoint or strayed from it: it is emptied, to go on
        behind `after`. On return everything found is durable. Blocks: reads the segments from the
        one on that may hold entry `after + 1`.

        Raises Damaged if bytes are bad that were durable, or if entries behind `after` are missing;
        OSError.
        """
        files.make_folder(folder)
        files.sync_folder(posixpath.dirname(folder) or ".")
        locations, cache = Locations(), EntryCache(after + 1)
        found = Recovery(files, folder, locations, cache, cache_bytes_max).run(after)
        if found is None:
            header = first_header(after, after_term)
            writer = SegmentWriter.create(files, folder, header)
            image = Image(header, locations)
            image.begin_segment(writer.sequence, writer.position)
        else:
            image, writer = found
        wal = cls(
            files,
            folder,
            image,
            writer,
            cache,
            locations,
            segment_bytes_max=segment_bytes_max,
            cache_bytes_max=cache_bytes_max,
        )
        try:
            wal._fit(after, after_term)
        except BaseException:
            wal.close()
            raise
        return wal

    def _fit(self, after: int, after_term: int) -> None:
        if after < self._base_index:
            reason = f"entries {after + 1} to {self._base_index} are missing"
            raise Damaged(segment_path(self._folder, self._image.oldest), 0, reason)
        if after > self.last_index or self.term_at(after) != after_term:
            self.reset(after, after_term)
            flush = self.begin_flush()
            assert flush is not None
            flush.run()
            self.end_flush(flush)

    @property
    def first_index(self) -> int:
        """The oldest entry that can be read; `last_index + 1` if there is none."""
        return self._base_index + 1

    @property
    def last_term(self) -> int:
        """The term of entry `last_index`."""
        return self._runs.last_term

    def term_at(self, index: int) -> int:
        """Return the term of an entry, from the one before `first_index` to `last_index`.

        Raises ValueError outside of that.
        """
        if not self._base_index <= index <= self.last_index:
            raise ValueError(f"{index} is outside of [{self._base_index}, {self.last_index}]")
        return self._runs.term_at(index)

    # Changes

    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add entry `index`, which must be `last_index + 1`, of at most PAYLOAD_BYTES_MAX bytes."""
        if index != self.last_index + 1:
            raise ValueError(f"entry {index} does not follow entry {self.last_index}")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"{len(payload)} bytes are too many for one entry")
        entry = Entry(payload, index, term)
        if term != self._appending_term:
            self._begin_entries(index, term)
        self._appending.append(entry)
        size = self._cache.append(entry)
        self._buffer_bytes += size
        self.pending_bytes += size
        self.last_index = index
        self.lsn += 1

    def _begin_entries(self, index: int, term: int) -> None:
        self._runs.append(index, term)
        self._appending, self._appending_term = [], term
        self._changes.append(Entries(self._appending))

    def truncate(self, from_index: int) -> None:
        """Drop the entries from `from_index` on, at least one and none below `first_index`."""
        if not self._base_index < from_index <= self.last_index:
            raise ValueError(
                f"cannot truncate [{self.first_index}, {self.last_index}] from {from_index}"
            )
        self._cache.truncate(from_index)
        self._runs.truncate(from_index)
        self._end_at(from_index - 1)
        self._change(Truncate(from_index))

    def reset(self, index: int, term: int) -> None:
        """Drop all entries and go on behind entry `index` of `term`, which a checkpoint covers.

        `durable_index` never counts less than that: call this when the checkpoint is durable.
        """
        self._cache.reset(index + 1)
        self._runs = TermRuns([(index, term)])
        self._base_index = index
        self._end_at(index)
        self._change(Reset(index, term))

    def set_hard_state(self, term: int, vote: str | None) -> None:
        """Set the current term and the vote cast in it; a vote is not the empty string."""
        if vote == "":
            raise ValueError("a vote names a node")
        self.term, self.vote = term, vote
        self._change(HardState(term, vote), len(encode_vote(vote)))

    def vouch(self) -> None:
        """Have the next flush say that what is durable is durable, with nothing new to write.

        Recovery takes a bad frame at the log's end for a torn write unless a later frame calls it
        durable. A log that rests for a while should end with such a frame.
        """
        self.set_hard_state(self.term, self.vote)

    def forget_through(self, index: int) -> None:
        """Let nobody read the entries up to `index` any more, though their files stay for now.

        For damaged entries that a durable checkpoint covers.
        """
        if index > self.last_index:
            raise ValueError(f"{index} is behind the log's last entry {self.last_index}")
        if index > self._base_index:
            self._base_index = index
            self._runs.forget_before(index)

    def _end_at(self, index: int) -> None:
        self.last_index = index
        self.durable_index = min(self.durable_index, index)
        self._untouched_index = min(self._untouched_index, index)

    def _change(self, change: Change, payload_bytes: int = 0) -> None:
        self._changes.append(change)
        self._appending_term = -1
        self._buffer_bytes += frame_size(payload_bytes)
        self.pending_bytes += frame_size(payload_bytes)
        self.lsn += 1

    # Flushing

    @property
    def has_changes(self) -> bool:
        """Does something wait for the next flush?"""
        return bool(self._changes)

    def begin_flush(self) -> Flush | None:
        """Take the buffer out; None if it is empty or another flush has not ended.

        Raises Poisoned after a flush failed.
        """
        self._check_writer()
        if self._in_flight is not None or not self._changes:
            return None
        image = self._image
        full = image.position + self._buffer_bytes > self._segment_bytes_max
        header = image.next_header() if full and not image.segment_is_empty else None
        flush = Flush(
            self.lsn, self.last_index, self._buffer_bytes, self._writer, self._changes, header
        )
        self._changes, self._buffer_bytes, self._appending_term = [], 0, -1
        self._untouched_index = self.last_index
        self._in_flight = flush
        return flush

    def end_flush(self, flush: Flush) -> None:
        """Take notice that `flush.run` has returned. Raises Poisoned if it raised."""
        self._check_writer()
        assert flush is self._in_flight
        flush.show(self._image)
        self._in_flight = None
        self.durable_lsn = flush.lsn
        self.durable_index = max(self.durable_index, min(flush.last_index, self._untouched_index))
        self.pending_bytes -= flush.size_bytes
        self._cache.evict(self._cache_bytes_max, self.durable_index + 1)

    def _check_writer(self) -> None:
        if self._writer.failure is not None:
            raise Poisoned(self._folder, self._writer.failure) from self._writer.failure

    # Reading

    def read(self, start: int, bytes_max: int, end: int | None = None) -> list[Entry] | None:
        """Return entries from `start` to before `end`, of at most `bytes_max` as frames.

        At least one, [] only at the log's end; None if `start` is not in memory: `load` it. Raises
        ValueError below `first_index`.
        """
        end = self._check_range(start, end)
        if start >= end:
            return []
        if start < self._cache.first:
            return None
        return self._cache.read(start, bytes_max, end)

    def load(self, start: int, bytes_max: int, end: int | None = None) -> Callable[[], list[Entry]]:
        """Plan what `read` does from the disk; the callable blocks and runs on any thread.

        It returns entries as they are now: who has truncated meanwhile must not use them. It may
        return fewer than asked for, and none if `drop_before` removed them before it ran. Raises
        ValueError at once below `first_index`; the callable raises Damaged or OSError.
        """
        entries = self.read(start, bytes_max, end)
        if entries is not None:
            return lambda: entries
        end = min(self._check_range(start, end), self._cache.first)
        pieces = self._image.extents.pieces(start, end, bytes_max, self._locations)
        return ColdRead(
            self._files, self._folder, pieces, bytes_max, self._locations, self._is_dropped
        )

    def bytes_between(self, low: int, high: int) -> int:
        """Return the size of the frames of entries in (low, high], bounded by what there is.

        Exact in memory; on disk an estimate between known positions.
        """
        low, high = max(low, self._base_index), min(high, self.last_index)
        if low >= high:
            return 0
        hot = self._cache.first - 1
        total = 0
        if low < hot:
            cold_end = min(high, hot) + 1
            total = self._image.extents.bytes_between(low + 1, cold_end, self._locations)
        if high > hot:
            total += self._cache.bytes_between(max(low, hot), high)
        return total

    def _check_range(self, start: int, end: int | None) -> int:
        if start <= self._base_index:
            raise ValueError(f"entry {start} is gone, the log begins at {self.first_index}")
        return self.last_index + 1 if end is None else min(end, self.last_index + 1)

    def _is_dropped(self, sequence: int) -> bool:
        return sequence < self._image.oldest

    def drop_before(self, index: int) -> Callable[[], None]:
        """Give up the whole segments with no entry ≥ `index`, but never the newest one.

        `first_index` moves at once; the callable removes the files, blocks and runs on any thread.
        A checkpoint that covers the entries must be durable.
        """
        if index > self.last_index + 1:
            raise ValueError(f"{index} is behind the log's end {self.last_index + 1}")
        image = self._image
        oldest = image.oldest
        keep = image.extents.sequence_holding(index)
        if keep is None:
            keep = image.sequence
        image.forget_before(keep)
        if self._base_index < image.base_index:
            self._base_index = image.base_index
            self._runs.forget_before(self._base_index)
        paths = [segment_path(self._folder, sequence) for sequence in range(oldest, keep)]
        return partial(_remove, self._files, self._folder, paths)

    def close(self) -> None:
        """Close the files; what waits for a flush is lost."""
        self._writer.close()


def _remove(files: FileSystem, folder: str, paths: list[str]) -> None:
    """Remove the files, oldest first: recovery takes what is behind a gap for the log."""
    for path in paths:
        files.remove(path)
    if paths:
        files.sync_folder(folder)
