"""Ways through a store: the index's hints, and what to believe when one leads nowhere.

A hint is right if the batch at its position begins at its offset. If none does, either the hint is
wrong or the store is damaged right there. A walk from the hint before decides: batches lie without
a gap, so it comes to the hint's offset at the hint's position, or it shows that the hint is wrong.
A wrong index is built anew and costs nothing but time; damage is for who has another copy.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TypeVar

from .batch import BATCH_BYTES_MAX
from .errors import CorruptBatch, DamagedBatch
from .index import START, IndexEntry, OffsetIndex
from .store import Store
from .walk import Walk

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Guide:
    """Finds batches in the store of one segment."""

    def __init__(self, store: Store, index: OffsetIndex, base_offset: int, interval: int) -> None:
        self._store = store
        self._index = index
        self._base_offset = base_offset
        self._interval_bytes = interval

    def from_offset(self, offset: int, step: Callable[[IndexEntry], T]) -> T:
        """Take `step` from the nearest hint for `offset`; again if the hint was wrong.

        Raises the DamagedBatch that the step raised, or one before it.
        """
        return self._guided(lambda: self._index.find(offset - self._base_offset), step)

    def from_position(self, position: int, step: Callable[[IndexEntry], T]) -> T:
        """Do the same from the nearest hint for a position."""
        return self._guided(lambda: self._index.find_position(position), step)

    def locate(self, offset: int) -> tuple[int, bytes | None]:
        """Return the position of the batch that begins at `offset`, whatever became of it, and the
        digest of the one before it in this store, if there is one.

        Raises DamagedBatch if the way there is damaged, ValueError if no batch begins there.
        """
        if offset == self._base_offset:
            return 0, None
        behind = IndexEntry(offset - self._base_offset, self._store.size)
        walk = self._approach(behind, lambda walk: walk.next_offset >= offset)
        if walk.next_offset != offset or walk.last is None:
            raise ValueError(f"no batch begins at offset {offset}")
        return walk.position, walk.last.digest()

    def stride(self, hint: IndexEntry) -> int:
        """Return the bytes from `hint` to the next one, where whatever it leads to has ended; an
        interval if there is none.
        """
        behind = self._index.behind(hint)
        if (
            behind is None
            or behind.position - hint.position > self._interval_bytes + BATCH_BYTES_MAX
        ):
            return self._interval_bytes  # no two hints are so far apart, unless some are missing
        return behind.position - hint.position

    def walk(self, start: IndexEntry, is_reached: Callable[[Walk], bool]) -> Walk:
        """Walk from `start` until `is_reached`, or to the end. Raises DamagedBatch."""
        walk = Walk(self._base_offset, start, self._interval_bytes)
        try:
            walk.run_until(self._store, is_reached, self.stride(start))
        except CorruptBatch as error:
            raise self.damaged(error, walk.next_offset) from error
        return walk

    def walk_all(self) -> Walk:
        """Walk over the whole store. Raises DamagedBatch."""
        walk = Walk(self._base_offset, START, self._interval_bytes)
        try:
            walk.run(self._store)
        except CorruptBatch as error:
            raise self.damaged(error, walk.next_offset) from error
        return walk

    def damaged(self, error: CorruptBatch, offset: int) -> DamagedBatch:
        """Return what it means that the batch due at `offset` is none."""
        return DamagedBatch(
            self._store.path,
            error.position,
            error.reason,
            base_offset=self._base_offset,
            offset=offset,
        )

    def check_index(self, walk: Walk) -> None:
        """Compare the index with what a walk over the whole store found."""
        found = self._index.entries()
        if found == walk.entries:
            return
        if found and found == walk.entries[: len(found)]:
            # Only behind: its newest page did not reach the disk before a crash.
            self._fill_index(walk.entries)
        else:
            reason = "missing or empty" if not found else "not what the store holds"
            self._replace_index(walk, self._index.doubt or reason)

    def _guided(self, find: Callable[[], IndexEntry], step: Callable[[IndexEntry], T]) -> T:
        while True:
            hint = find()
            try:
                return step(hint)
            except DamagedBatch as damage:
                if hint == START or damage.position > hint.position or self._is_right(hint):
                    raise
            self._correct_index(hint)

    def _is_right(self, hint: IndexEntry) -> bool:
        """Is a batch due where `hint` says? Raises DamagedBatch if the way there is damaged."""
        walk = self._approach(hint, lambda walk: walk.position >= hint.position)
        return (walk.next_offset - self._base_offset, walk.position) == hint

    def _approach(self, goal: IndexEntry, is_reached: Callable[[Walk], bool]) -> Walk:
        """Walk from the nearest hint before `goal` that holds."""
        entries = [
            entry
            for entry in self._index.entries()
            if entry.relative_offset < goal.relative_offset and entry.position < goal.position
        ]
        for start in reversed(entries):
            try:
                return self.walk(start, is_reached)
            except DamagedBatch as damage:
                if damage.position > start.position:
                    raise
        return self.walk(START, is_reached)

    def _correct_index(self, wrong: IndexEntry) -> None:
        try:
            self._replace_index(self.walk_all(), "an entry leads astray")
        except DamagedBatch:
            # What lies behind the damage can be found by the other entries only.
            self._fill_index([entry for entry in self._index.entries() if entry != wrong])

    def _replace_index(self, walk: Walk, reason: str) -> None:
        facts = {"path": self._index.path, "reason": reason}
        _logger.warning("offset index rebuilt", extra=facts)
        self._fill_index(walk.entries)

    def _fill_index(self, entries: list[IndexEntry]) -> None:
        try:
            self._index.replace(entries)
        except OSError as error:
            # What has room is right: a short index makes reads slow, and nothing else.
            if error.errno != errno.ENOSPC:
                raise
