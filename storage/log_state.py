"""What a log is told when it is opened: its settings, and what it held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from .batch import CHAIN_START
from .index import POSITION_MAX
from .names import SegmentName
from .wal_frame import Number

_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
Generation: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10**18 - 1)]
_Hex: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Digest: TypeAlias = Annotated[
    bytes, msgspec.Meta(min_length=len(CHAIN_START), max_length=len(CHAIN_START))
]


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


class Compacted(NamedTuple):
    """What there is to know of a segment that compaction made.

    The batch behind it was chained to a batch that is gone: it carries `bridge`, not `digest`.
    """

    base_offset: int
    generation: int
    digest: bytes
    """Of the segment's last batch."""
    bridge: bytes
    """Of the last batch of what it was made of."""


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    start: Number
    end: Number
    segments: tuple[tuple[Number, _Size], ...]
    compacted: tuple[tuple[Number, Generation, _Hex, _Hex], ...] = ()
    """Digests as text: a state can be kept as JSON."""


@dataclass(frozen=True, slots=True)
class LogState:
    """What a log holds: a checkpoint's word. The default is a log that was never written."""

    log_start_offset: int = 0
    log_end_offset: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    """(base offset, bytes) of each, oldest first."""
    compacted: tuple[Compacted, ...] = ()
    """More of those that compaction made."""

    def names(self) -> list[SegmentName]:
        """Return what the files of each segment are named by."""
        generations = {each.base_offset: each.generation for each in self.compacted}
        return [SegmentName(base, generations.get(base, 0)) for base, _ in self.segments]

    def seams(self) -> dict[int, Compacted]:
        """Return what is known of compacted segments, by the offset where each ends."""
        ends = [base for base, _ in self.segments[1:]]
        known = {each.base_offset: each for each in self.compacted}
        bases = (base for base, _ in self.segments)
        return {end: known[base] for base, end in zip(bases, ends, strict=False) if base in known}

    def to_list(self) -> list[Any]:
        """Return what msgpack and JSON can pack."""
        segments = [list(segment) for segment in self.segments]
        packed: list[Any] = [self.log_start_offset, self.log_end_offset, segments]
        if self.compacted:
            packed.append(
                [
                    [each.base_offset, each.generation, each.digest.hex(), each.bridge.hex()]
                    for each in self.compacted
                ]
            )
        return packed

    @classmethod
    def from_list(cls, packed: Sequence[object]) -> LogState:
        """Undo `to_list`; raises ValueError for anything else."""
        try:
            state = msgspec.convert(packed, _Packed)
        except msgspec.ValidationError as error:
            raise ValueError(f"no log state: {error}") from None
        start, end, segments = state.start, state.end, state.segments
        bases = [base for base, _ in segments]
        if start > end or any(low >= high for low, high in pairwise([*bases, end + 1])):
            raise ValueError("no log state: segments or bounds out of order")
        compacted = tuple(
            Compacted(base, generation, bytes.fromhex(digest), bytes.fromhex(bridge))
            for base, generation, digest, bridge in state.compacted
        )
        others = [each.base_offset for each in compacted]
        # The newest segment is what the next batch follows: it is never compacted.
        is_in_order = all(low < high for low, high in pairwise(others))
        if not is_in_order or not set(others) <= set(bases[:-1]):
            raise ValueError("no log state: a compacted segment that is none")
        return cls(start, end, segments, compacted)
