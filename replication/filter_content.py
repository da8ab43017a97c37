"""The Bloom filters that a stream has on this node: one per sealed segment, built one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..storage.batch import Batch
from ..storage.index_values import encode
from ..storage.segment_filter import SegmentFilter
from .index_contents import Do, Plan, Read, find_source, records_of
from .index_files import IndexFiles, Place
from .stream import Stream


class FilterContent:
    """A filter for each sealed segment: a bloom index, or what reads with `key=` use."""

    def __init__(self, files: IndexFiles, stream: Stream, place: Place, on: str) -> None:
        self.stream = stream
        self.place = place
        self.source = find_source(on)
        self.ends: dict[int, int] | None = None
        """End offset of each segment that has a filter, by base offset; None: not looked yet."""
        self.records = 0
        self._files = files
        self._building: SegmentFilter | None = None
        self._reached = 0
        self._seen: tuple[int, int, int] | None = None

    @property
    def is_ready(self) -> bool:
        return self.ends is not None and self._missing() is None

    def missing_records(self) -> int:
        ends = self.ends or {}
        return sum(
            row.end_offset - max(row.base_offset, self.stream.log_start_offset)
            for row in self.stream.segments.sealed()
            if ends.get(row.base_offset) != row.end_offset
        )

    def plan(self, now: float) -> Plan:
        if self.ends is None:
            return Do(lambda: self._files.kept_filters(self.place), self._was_listed)
        if self._building is None:
            missing = self._missing()
            if missing is None:
                return None
            self._building = SegmentFilter(*missing)
            self._reached = missing[0]
        self._reached = max(self._reached, self.stream.log_start_offset)
        building = self._building
        if self._reached < building.end_offset:
            return Read(self._reached, building.end_offset)
        return self._keep(building)

    def _was_listed(self, ends: object) -> None:
        assert isinstance(ends, dict)
        self.ends = ends

    def _missing(self) -> tuple[int, int] | None:
        """The first sealed segment without a filter, looked for when there are others than at the
        last look.
        """
        segments = self.stream.segments
        rows = segments.sealed()
        seen = (len(segments), segments.swaps, self.stream.log_start_offset)
        if seen == self._seen or self.ends is None:
            return None
        for row in rows:
            if self.ends.get(row.base_offset) != row.end_offset:
                return row.base_offset, row.end_offset
        self._seen = seen
        return None

    def _keep(self, building: SegmentFilter) -> Do:
        assert self.ends is not None
        known = {row.base_offset for row in self.stream.segments.sealed()}
        gone = [(base, self.ends.pop(base)) for base in list(self.ends) if base not in known]

        def job() -> None:
            for base_offset, end_offset in gone:
                self._files.remove_filter(self.place, base_offset, end_offset)
            self._files.keep_filter(self.place, building)

        def done(_: object) -> None:
            assert self.ends is not None
            self._building = None
            self.ends[building.base_offset] = building.end_offset

        return Do(job, done)

    def forget(self, base_offset: int | None = None) -> None:
        """A file is not what was written: build it again."""
        self._seen = None
        if base_offset is not None and self.ends is not None:
            self.ends.pop(base_offset, None)

    def digest(self, batches: Sequence[Batch], read: Read) -> object:
        building, count = self._building, 0
        assert building is not None
        reached = read.offset
        for batch in batches:
            records = records_of(batch, read)
            values = [value for value in map(self.source.find, records) if value is not None]
            building.add(map(encode, values))
            count += len(values)
            reached = batch.next_offset
            time.sleep(0)
        return reached, count

    def digested(self, result: object, read: Read, now: float) -> None:
        assert isinstance(result, tuple)
        self._reached = result[0]
        self.records += result[1]
