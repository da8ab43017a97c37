"""What was applied to one stream and is on its way to its files."""

from __future__ import annotations

from ..storage.batch import Batch


class Unwritten:
    __slots__ = ("end_offset", "log_start_offset", "runs", "size_bytes")

    def __init__(self) -> None:
        self.runs: list[list[Batch]] = [[]]
        """The first goes on in the newest segment, each further one begins its own."""
        self.size_bytes = 0
        self.end_offset: int | None = None
        """Where the newest batch ends; None without a batch."""
        self.log_start_offset = 0
        """To be trimmed to, once the batches are written; 0 if there was no trim."""

    def add(self, batch: Batch, *, begins_segment: bool) -> None:
        if begins_segment:
            self.runs.append([])
        self.runs[-1].append(batch)
        self.size_bytes += batch.size
        self.end_offset = batch.next_offset
