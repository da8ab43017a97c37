"""The names of a segment's files: its base offset in 20 digits, so that a listing is in order.

A segment that compaction made of others has its *generation* in its name too, which is above those
of all it was made of: `{base offset}-{generation}`. The pair never comes again while a log lives.
What is still being made ends in `.new`, and is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from .filesystem import FileSystem

NEW_SUFFIX: Final = ".new"
STORE_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".index"
TIME_INDEX_SUFFIX: Final = ".times"
_STEM: Final = re.compile(r"([0-9]{20})(?:-([1-9][0-9]{0,17}))?", re.ASCII)


class SegmentName(NamedTuple):
    base_offset: int
    generation: int = 0
    """How often compaction made a segment of what is here; 0: as it was appended."""


def stem(base_offset: int, generation: int = 0) -> str:
    return f"{base_offset:020d}-{generation}" if generation else f"{base_offset:020d}"


def store_path(folder: str, base_offset: int, generation: int = 0) -> str:
    return f"{folder}/{stem(base_offset, generation)}{STORE_SUFFIX}"


def index_path(folder: str, base_offset: int, generation: int = 0) -> str:
    return f"{folder}/{stem(base_offset, generation)}{INDEX_SUFFIX}"


def time_index_path(folder: str, base_offset: int, generation: int = 0) -> str:
    return f"{folder}/{stem(base_offset, generation)}{TIME_INDEX_SUFFIX}"


def segment_paths(folder: str, name: SegmentName) -> list[str]:
    """Return the paths of all that is of a segment, the store first; the others may be missing."""
    suffixes = (STORE_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX)
    return [f"{folder}/{stem(*name)}{suffix}" for suffix in suffixes]


def parse_stem(text: str) -> SegmentName | None:
    """Undo `stem`; None for anything else."""
    match = _STEM.fullmatch(text)
    return SegmentName(int(match[1]), int(match[2] or 0)) if match is not None else None


def generation_of(path: str) -> int:
    """Return the generation in the path of a store or an index; 0 if it is none."""
    parsed = parse_stem(path.rpartition("/")[2].partition(".")[0])
    return parsed.generation if parsed is not None else 0


def segment_names(names: Sequence[str], suffix: str = STORE_SUFFIX) -> list[SegmentName]:
    """Return the segments that have a store among the names of a folder, ascending."""
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return sorted(name for name in map(parse_stem, stems) if name is not None)


def remove_files(
    files: FileSystem, folder: str, names: Sequence[str], keep: Collection[SegmentName]
) -> bool:
    """Remove the files of segments not in `keep`; return whether there were any."""
    kept = set(keep)
    paths = [
        f"{folder}/{stem(*name)}{suffix}"
        for suffix in (STORE_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX)
        for name in segment_names(names, suffix)
        if name not in kept
    ]
    for path in paths:
        files.remove(path)
    return bool(paths)


def remove_new(files: FileSystem, folder: str, names: Sequence[str]) -> None:
    """Remove what a process that ended was about to make."""
    for name in names:
        if name.endswith(NEW_SUFFIX):
            files.remove(f"{folder}/{name}")
