"""What compaction does to the streams' files, step by step. Everything here blocks and runs on the
streams lane, a short job at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from ..storage.cleaner import Cleaner, Group, MaskReader, WrongMask
from ..storage.compacting import Compaction, Made, Run, swap
from ..storage.compaction import pack_mask, unpack_mask
from ..storage.errors import DamagedBatch, OffsetOutOfRange
from ..storage.log import Log
from ..storage.names import SegmentName
from ..storage.segment_writer import SegmentWriter
from ..storage.store import parse_all
from .commands import CompactedRun
from .compaction import Pass
from .segments import SegmentRow
from .stream_files import StreamFiles

STEP_BYTES = 64 << 10

T = TypeVar("T")


class Outcome(Enum):
    GOES_ON = "goes on"
    WAITS = "the segments are not written yet"
    DONE = "done"
    DIFFERS = "not what the leader made"


def or_damage(step: Callable[[], T]) -> T | DamagedBatch:
    """Damage is no failure of a job: it is to be mended."""
    try:
        return step()
    except DamagedBatch as damage:
        return damage


def run_of(run: CompactedRun) -> Run:
    return Run(run.base_offset, run.end_offset, run.generation)


def made_of(run: CompactedRun) -> Made:
    return Made(run.size_bytes, run.records, run.digest, run.bridge)


class RunWork:
    """Makes what the leader has made of a run, or has `made` here itself."""

    def __init__(
        self,
        files: StreamFiles,
        stream_id: int,
        run: CompactedRun,
        made: Compaction | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.run = run
        self._files = files
        self._compaction = made
        self._mask: MaskReader | None = None

    def step(self) -> tuple[int, Outcome]:
        """Go on; the bytes read. Raises DamagedBatch: begin anew once it is mended."""
        log = self._files.log(self.stream_id)
        if log is None:
            return 0, Outcome.WAITS
        if is_done(log, self.run.name):
            self.abandon()
            return 0, Outcome.DONE
        if self._compaction is None:
            names = [each.name for each in log.sealed_segments()]
            if self.run.inputs[-1] not in names:
                return 0, Outcome.WAITS
            try:
                self._mask = MaskReader(unpack_mask(self.run.mask))
            except ValueError:
                return 0, Outcome.DIFFERS
            self._compaction = Compaction(log, run_of(self.run))
        size = 0
        if self._compaction.made is None:
            assert self._mask is not None
            try:
                size = self._compaction.step(STEP_BYTES, self._mask)
            except WrongMask:
                return 0, Outcome.DIFFERS
            if self._compaction.made is None:
                return size, Outcome.GOES_ON
        if self._compaction.made != made_of(self.run):
            return size, Outcome.DIFFERS
        swap(log, run_of(self.run), self._compaction.made)
        return size, Outcome.DONE

    @property
    def bytes_written(self) -> int:
        """By this node, for the segment that is in its place."""
        made = self._compaction.made if self._compaction is not None else None
        return made.size if made is not None else 0

    @property
    def records_removed(self) -> int:
        """By this node, when it put the segment in its place."""
        compaction = self._compaction
        if compaction is None or compaction.made is None:
            return 0
        return compaction.records_before - compaction.made.records

    def abandon(self) -> None:
        if self._compaction is not None:
            self._compaction.abandon()
            self._compaction = None


class FetchedSegment:
    """Takes a compacted segment from another node, where this one cannot make it."""

    def __init__(self, files: StreamFiles, stream_id: int, row: SegmentRow) -> None:
        self.due_offset = row.base_offset
        self._files = files
        self._stream_id = stream_id
        self._row = row
        self._writer: SegmentWriter | None = None
        self._chain: bytes | None = None
        self._count = 0

    def add(self, data: bytes) -> Outcome:
        """Take batches from `due_offset` on. What is whole and right takes its place."""
        log = self._files.log(self._stream_id)
        if log is None:
            return Outcome.DIFFERS
        if is_done(log, self._row.name):
            self.abandon()
            return Outcome.DONE
        if all(each.next_offset != self._row.end_offset for each in log.sealed_segments()):
            return Outcome.WAITS
        if self._writer is None:
            self._chain = log.link_at(self._row.base_offset)
            self._writer = log.new_segment(self._row.name)
        batches, _, _ = parse_all(data)
        due_before = self.due_offset
        for batch in batches:
            is_linked = self._chain is None or batch.chain == self._chain
            if batch.base_offset != self.due_offset or not is_linked:
                return Outcome.DIFFERS
            if batch.next_offset > self._row.end_offset:
                return Outcome.DIFFERS
            self._chain, self.due_offset = batch.digest(), batch.next_offset
            self._count += batch.count
            if self.due_offset == self._row.end_offset:
                break
        if self.due_offset == due_before:
            return Outcome.DIFFERS
        self._writer.append([each for each in batches if each.base_offset < self.due_offset])
        if self.due_offset < self._row.end_offset:
            return Outcome.GOES_ON
        assert self._chain is not None
        row = self._row
        made = Made(self._writer.size, self._count, self._chain, row.bridge)
        if made != (row.size_bytes, row.records, row.digest, row.bridge):
            return Outcome.DIFFERS
        self._writer.finish(self._chain)
        swap(log, Run(row.base_offset, row.end_offset, row.generation), made)
        return Outcome.DONE

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


def is_done(log: Log, name: SegmentName) -> bool:
    """Is the segment in its place, or one that was made of that?"""
    return any(
        each.base_offset <= name.base_offset < each.next_offset
        and each.generation >= name.generation
        for each in log.sealed_segments()
    )


class Step(NamedTuple):
    """What a step of a pass has come to."""

    size: int
    run: CompactedRun | None = None
    """Made, durable, and to be agreed upon before the next step."""
    below: int | None = None
    """The pass has ended: everything below it was looked at."""


class PassWork:
    """The leader's way through a stream."""

    def __init__(self, files: StreamFiles, plan: Pass, keys_max: int) -> None:
        self.plan = plan
        self._files = files
        self._keys_max = keys_max
        self._cleaner: Cleaner | None = None
        self._is_scanned = False
        self._group: Group | None = None
        self._mask: MaskReader | None = None
        self._compaction: Compaction | None = None

    def step(self) -> Step | None:
        """Go on; None if there is nothing to go on with: what it looked at is gone, or is not
        written yet. Raises DamagedBatch.
        """
        log = self._files.log(self.plan.stream_id)
        if log is None:
            return None
        try:
            return self._step(log)
        except OffsetOutOfRange:
            return None

    def _step(self, log: Log) -> Step | None:
        if self._cleaner is None:
            sealed = log.sealed_segments()
            if not sealed or sealed[-1].next_offset < self.plan.end_offset:
                return None
            self._cleaner = Cleaner(
                log,
                cleaned_until=self.plan.cleaned_until,
                end_offset=self.plan.end_offset,
                tombstones_below=self.plan.tombstones_below,
                keys_max=self._keys_max,
                segment_bytes_max=self.plan.segment_bytes_max,
            )
        if self._compaction is not None:
            return self._make()
        if not self._is_scanned:
            size = self._cleaner.scan(STEP_BYTES)
            self._is_scanned = size is None
            return Step(size or 0)
        judged = self._cleaner.judge(STEP_BYTES)
        if judged is None:
            return Step(0, below=self._cleaner.below)
        size, group = judged
        if group is not None:
            self._group, self._mask = group, MaskReader(group.mask)
            self._compaction = Compaction(log, group.run)
        return Step(size)

    def _make(self) -> Step:
        assert self._compaction is not None
        assert self._group is not None
        assert self._mask is not None
        size = self._compaction.step(STEP_BYTES, self._mask)
        made, group = self._compaction.made, self._group
        if made is None:
            return Step(size)
        names = [each.name for each in group.segments]
        mask = pack_mask(group.mask)
        end_offset = group.segments[-1].next_offset
        return Step(size, CompactedRun(names, end_offset, mask, *made))

    def hand_over(self) -> Compaction | None:
        """Give away what was made, to be put in its place."""
        compaction, self._compaction = self._compaction, None
        return compaction

    def abandon(self) -> None:
        if self._compaction is not None:
            self._compaction.abandon()
            self._compaction = None
