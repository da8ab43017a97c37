"""What a log is told when it is opened: its settings, and what it held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, TypeAlias

import msgspec

from .index import POSITION_MAX
from .wal_frame import Number

_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
_Packed: TypeAlias = tuple[Number, Number, tuple[tuple[Number, _Size], ...]]


@dataclass(frozen=True, slots=True)
class LogConfig:
    segment_bytes_max: int = 64 * 1024 * 1024
    """A segment is sealed when the next batch would pass this; a larger batch gets one of its own.

    A log opened without a checkpoint's word walks its last segment.
    """
    index_interval_bytes: int = 4096
    """One index entry per so many bytes of store; a read checks up to so many it does not want."""

    def __post_init__(self) -> None:
        check_segment_bytes_max(self.segment_bytes_max)
        if self.index_interval_bytes < 1:
            raise ValueError(f"index_interval_bytes: {self.index_interval_bytes} is below 1")


def check_segment_bytes_max(segment_bytes_max: int) -> None:
    """Raise ValueError for what the offset index cannot express."""
    if not 1 <= segment_bytes_max <= POSITION_MAX:
        raise ValueError(f"segment_bytes_max: {segment_bytes_max} is not in 1 … {POSITION_MAX}")


@dataclass(frozen=True, slots=True)
class LogState:
    """What a log holds: a checkpoint's word. The default is a log that was never written."""

    log_start_offset: int = 0
    log_end_offset: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    """(base offset, bytes) of each, oldest first."""

    def to_list(self) -> list[int | list[list[int]]]:
        """Return what msgpack can pack."""
        segments = [list(segment) for segment in self.segments]
        return [self.log_start_offset, self.log_end_offset, segments]

    @classmethod
    def from_list(cls, packed: Sequence[int | Sequence[Sequence[int]]]) -> LogState:
        """Undo `to_list`; raises ValueError for anything else."""
        try:
            start, end, segments = msgspec.convert(packed, _Packed)
        except msgspec.ValidationError as error:
            raise ValueError(f"no log state: {error}") from None
        bases = [base for base, _ in segments]
        if start > end or any(low >= high for low, high in pairwise([*bases, end + 1])):
            raise ValueError("no log state: segments or bounds out of order")
        return cls(start, end, segments)
