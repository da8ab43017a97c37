"""A log that dies at any byte it writes, whatever it was doing, is a prefix of what it was given.

The model is a list of batches. Compaction makes others of the first of them; which records must be
in these a second model says, of records. A *kill* leaves what was written, up to any byte of the
write that was under way. A *power loss* may also take any end of what was not synced, and new files
whose names were not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cute_logger.storage import (
    Batch,
    Log,
    LogConfig,
    LogState,
    Poisoned,
    Record,
    StoredRecord,
    build_batch,
    encode_records,
)
from cute_logger.storage.filesystem import Buffer, File, OsFileSystem

CONFIG = LogConfig(segment_bytes_max=900, index_interval_bytes=150)
ALL = 10**9
FAR = 10**12


class Died(Exception):
    """The process is no more."""


class DyingDisk(OsFileSystem):
    """The real files, of a process that dies when it has written so many bytes more."""

    def __init__(self) -> None:
        self.bytes_left = FAR
        self.durable: dict[str, int] = {}
        """Length of each file that a power loss keeps."""
        self.new: list[str] = []
        """Files whose names it does not."""

    def open(self, path: str, *, create: bool = False) -> File:
        file = super().open(path, create=create)
        if create:
            self.new.append(path)
            self.durable[path] = 0
        return DyingFile(self, path, file)

    def remove(self, path: str) -> None:
        super().remove(path)
        self.durable.pop(path, None)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self.durable[target] = self.durable.pop(source)
        self.new = [name for name in self.new if name != source] + [target]

    def sync_folder(self, path: str) -> None:
        self.new = [name for name in self.new if name.rpartition("/")[0] != path]


class DyingFile:
    def __init__(self, disk: DyingDisk, path: str, file: File) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self.size = file.size
        self.read_at = file.read_at
        self.map = file.map
        self.close = file.close

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        taken = data[: self._disk.bytes_left]
        self._disk.bytes_left -= len(taken)
        self._file.write_at(position, [taken])
        if len(taken) < len(data):
            raise Died

    def truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._disk.durable[self._path] = min(self._disk.durable.get(self._path, size), size)

    def sync(self) -> None:
        self._disk.durable[self._path] = self._file.size()


class LogThatDies(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "log"
        self.disk = DyingDisk()
        self.model: list[Batch] = []
        self.start = 0
        self.cleaned_until = 0
        self.state = LogState()
        """What the last sync returned."""
        self.is_vouched = False
        self.log = self.opened()

    @initialize(is_vouched=st.booleans())
    def begin(self, is_vouched: bool) -> None:
        """A log is opened with a checkpoint's word always, or never."""
        self.is_vouched = is_vouched
        if is_vouched:
            self.log.close()
            self.log = self.opened(self.state)

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.root)

    def opened(self, vouched: LogState | None = None) -> Log:
        return Log.open(str(self.folder), CONFIG, files=self.disk, vouched=vouched)

    @property
    def end(self) -> int:
        return self.model[-1].next_offset if self.model else 0

    def batches(self, shapes: list[tuple[int, int]]) -> list[Batch]:
        new: list[Batch] = []
        offset = self.end
        chain = self.model[-1].digest() if self.model else bytes(16)
        for body_size, count in shapes:
            value = bytes([offset % 251]) * (body_size // count)
            records = [Record(value, b"%d" % ((offset + each) % 5)) for each in range(count)]
            new.append(
                build_batch(
                    encode_records(records),
                    count=count,
                    base_offset=offset,
                    timestamp=1,
                    max_timestamp=1,
                    chain=chain,
                )
            )
            chain = new[-1].digest()
            offset = new[-1].next_offset
        return new

    shapes = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 3)), min_size=1, max_size=6)

    @rule(shapes=shapes)
    def append(self, shapes: list[tuple[int, int]]) -> None:
        new = self.batches(shapes)
        self.log.append(new)
        self.model += new

    @rule(share=st.floats(0, 1), bytes_max=st.integers(0, 2000))
    def read(self, share: float, bytes_max: int) -> None:
        offset = self.start + int(share * (self.end - self.start))
        found = self.log.read(offset, bytes_max)
        wanted = [each for each in self.model if each.next_offset > offset]
        assert found == wanted[: len(found)]
        assert bool(found) == bool(wanted)

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule()
    def sync(self) -> None:
        self.state = self.log.sync()

    @rule(share=st.floats(0, 1))
    def trim(self, share: float) -> None:
        """And make a checkpoint of it, before the files go."""
        before = self.start + int(share * (self.end - self.start))
        self.log.trim(before)
        self.start = max(self.start, before)
        self.sync()
        self.log.remove_trimmed()

    @rule()
    def compact(self) -> None:
        """And make a checkpoint of it, before the files go."""
        before = self.records()
        self.cleaned_until = self.log.compact(cleaned_until=self.cleaned_until)
        self.take(compacted(before, self.cleaned_until))
        self.sync()
        self.log.remove_trimmed()

    @rule(share=st.floats(0, 1))
    def die_while_compacting(self, share: float) -> None:
        """At any byte of what is written: some segments are the old ones, some the new."""
        before, end = self.records(), self.end
        self.disk.bytes_left = int(share * (self.log.size_bytes + 100))
        with suppress(Died):
            self.log.compact(cleaned_until=self.cleaned_until)
        self.disk.bytes_left = FAR
        self.log.close()
        self.recover_from(before, end)

    def recover_from(self, before: list[StoredRecord], end: int) -> None:
        """Open again: what is gone is what compaction may take."""
        self.recover(at_least=end)
        self.model = self.log.read(self.log.first_offset, ALL, below_start=True)
        left = self.records()
        kept = {record.offset for record in compacted(before, end)}
        assert set(map(offset_of, left)) >= {each for each in kept if each >= self.start}
        wanted = {record.offset: record for record in before}
        assert all(wanted.get(record.offset, record) == record for record in left)

    def records(self) -> list[StoredRecord]:
        return [r for b in self.model for r in b.records() if r.offset >= self.start]

    def take(self, wanted: list[StoredRecord]) -> None:
        """The log holds these records, in which batches ever: that is the model from now on."""
        self.model = self.log.read(self.log.first_offset, ALL, below_start=True)
        assert self.records() == wanted

    @rule(shapes=shapes, share=st.floats(0, 1))
    def die_while_appending(self, shapes: list[tuple[int, int]], share: float) -> None:
        """At any byte of all that the append writes, the room in the index included."""
        new, end = self.batches(shapes), self.end
        self.disk.bytes_left = int(share * (sum(each.size for each in new) + 100))
        try:
            self.log.append(new)
        except Died:
            with pytest.raises(Poisoned):
                self.log.read(end, 1)
        self.model += new
        self.log.close()
        self.recover(at_least=end)

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.recover(at_least=self.end)

    @rule(data=st.data(), index=st.sampled_from(["kept", "lost", "zeros"]))
    def lose_power(self, data: st.DataObject, index: str) -> None:
        self.log.close()
        kept = data.draw(st.integers(0, len(self.disk.new)), "new files kept")
        for path in self.disk.new[kept:]:
            Path(path).unlink(missing_ok=True)
        self.disk.new = []
        for store in sorted(self.folder.glob("*.log")):
            size, durable = store.stat().st_size, self.disk.durable[str(store)]
            if size > durable:
                os.truncate(store, data.draw(st.integers(durable, size), store.name))
        for path in self.folder.glob("*.index"):
            if index == "lost":
                path.unlink()
            elif index == "zeros":
                path.write_bytes(bytes(path.stat().st_size))
        self.recover(at_least=self.state.log_end_offset)

    def recover(self, at_least: int) -> None:
        """Open again. By its files alone the log is a prefix of the list, at least so long, and the
        list is that from then on. With a checkpoint it is what that says; a journal, which here is
        the list, brings the rest.
        """
        self.disk.bytes_left = FAR
        if self.is_vouched:
            self.log = self.opened(self.state)
            state = self.state
            assert self.log.log_start_offset == state.log_start_offset
            assert self.log.log_end_offset == state.log_end_offset
            self.log.append([b for b in self.model if b.base_offset >= state.log_end_offset])
        else:
            self.log = self.opened()
            end = self.log.log_end_offset
            assert at_least <= end <= self.end
            self.model = [each for each in self.model if each.next_offset <= end]
            assert self.end == end, "batches are whole"
            self.sync()
        self.start = self.log.log_start_offset

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert (self.log.log_start_offset, self.log.log_end_offset) == (self.start, self.end)
        wanted = [each for each in self.model if each.next_offset > self.start]
        assert self.log.read(self.start, ALL) == wanted
        offsets = [each.base_offset for each in self.model if each.base_offset >= self.start]
        assert offsets == [each.base_offset for each in wanted if each.base_offset >= self.start]


def compacted(records: list[StoredRecord], below: int) -> list[StoredRecord]:
    newest = {record.key: record.offset for record in records if record.offset < below}
    return [r for r in records if r.offset >= below or newest[r.key] == r.offset]


def offset_of(record: StoredRecord) -> int:
    return record.offset


LogThatDies.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_a_log_that_dies_is_a_prefix_of_the_list = LogThatDies.TestCase
