"""What a look at a stopped node's files finds."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import CorruptBatch, Damaged


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as a clean stop leaves it."""

    path: str
    position: int
    """The byte from which on it is so."""
    reason: str
    is_damage: bool = True
    """Bytes that were promised to be durable are bad or gone. If not, it is what a crash leaves,
    and the next start deals with it.
    """
    offset: int | None = None
    """The record that is due there, in a stream's file."""
    index: int | None = None
    """The Raft entry that is due there, in the write-ahead log."""

    @classmethod
    def of(cls, error: Damaged | CorruptBatch, path: str, *, index: int | None = None) -> Finding:
        return cls(path, error.position, error.reason, index=index)

    @property
    def place(self) -> str:
        """Return the position in words."""
        words = f"byte {self.position}"
        if self.offset is not None:
            words += f", offset {self.offset}"
        if self.index is not None:
            words += f", entry {self.index}"
        return words
