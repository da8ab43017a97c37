"""The write-ahead log in the shape pysyncobj expects of a journal.

Stock code reads only the ends of the log and writes term, vote and no-ops; `RaftCore` uses the
named methods. Nothing here touches the disk: what is no longer in memory is *wanted*, the engine
loads it on another thread and hands it in.
"""

from __future__ import annotations

from pysyncobj.journal import Journal

from ..storage.wal import Entry, Wal

LOADED_CHUNKS_MAX = 16
"""Chunks of cold entries kept until their reader comes (one follower or apply each)."""


class RaftJournal(Journal):  # type: ignore[misc]
    def __init__(self, wal: Wal) -> None:
        self.wal = wal
        self.wanted: set[int] = set()
        """First indexes of cold reads that wait to be loaded."""
        self.generation = 0
        """Rises with every truncation: what was loaded before may be wrong now."""
        self._loaded: dict[int, list[Entry]] = {}

    @property
    def last_index(self) -> int:
        return self.wal.last_index

    @property
    def last_term(self) -> int:
        return self.wal.last_term

    @property
    def base_index(self) -> int:
        """Index just before the first entry kept."""
        return self.wal.first_index - 1

    @property
    def durable_index(self) -> int:
        return self.wal.durable_index

    @property
    def position(self) -> int:
        """Number of the newest thing written; what promises it waits for `durable_position`."""
        return self.wal.lsn

    @property
    def durable_position(self) -> int:
        return self.wal.durable_lsn

    def term_at(self, index: int) -> int:
        return self.wal.term_at(index)

    def bytes_between(self, low: int, high: int) -> int:
        return self.wal.bytes_between(low, high)

    def read(self, start: int, bytes_max: int, end: int | None = None) -> list[Entry] | None:
        """Entries from `start` (below `end`), at least one; None while they are being loaded."""
        entries = self.wal.read(start, bytes_max, end)
        if entries is not None:
            return entries
        loaded = self._loaded.pop(start, None)
        if loaded is None:
            self.wanted.add(start)
            return None
        if end is not None and loaded[-1].index >= end:
            keep = end - start
            self._loaded[end] = loaded[keep:]
            loaded = loaded[:keep]
        return loaded

    def supply(self, start: int, entries: list[Entry], generation: int) -> None:
        """Hand in what `wal.load(start)` read; ignored if the log was truncated meanwhile."""
        if generation != self.generation or not entries:
            return
        while len(self._loaded) >= LOADED_CHUNKS_MAX:
            del self._loaded[next(iter(self._loaded))]
        self._loaded[start] = entries

    def extend(self, entries: list[Entry]) -> None:
        for payload, index, term in entries:
            self.wal.append(index, term, payload)

    def truncate(self, from_index: int) -> None:
        """Drop the entries at `from_index` and above."""
        self.generation += 1
        self._loaded.clear()
        self.wal.truncate(from_index)

    # What stock code calls, under pysyncobj's names.

    def add(self, command: bytes, idx: int, term: int) -> None:
        self.wal.append(idx, term, command)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self.wal.set_hard_state(term, votedForNodeId)

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self.wal.term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self.wal.vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        """Not kept: after a restart the leader says what is committed."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        return self.base_index

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing is written in the background."""

    def __getitem__(self, item: int) -> tuple[bytes, int, int]:
        if item == -1:
            return (b"", self.last_index, self.last_term)
        raise IndexError(f"only the end of the log is read this way, not {item}")

    def __len__(self) -> int:
        return self.last_index - self.base_index

    def _destroy(self) -> None:
        """The write-ahead log is closed by whoever opened it."""

    def clear(self) -> None:
        raise AssertionError("stock code that rewrites the journal must not run")

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        self.clear()

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        self.clear()
