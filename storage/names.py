"""The names of a segment's files: its base offset in 20 digits, so that a listing is in order."""

from __future__ import annotations

from collections.abc import Sequence

from .filesystem import FileSystem

_NAME_DIGITS = 20
_STORE_SUFFIX = ".log"
_INDEX_SUFFIX = ".index"
_TIME_INDEX_SUFFIX = ".times"


def store_path(folder: str, base_offset: int) -> str:
    return f"{folder}/{base_offset:0{_NAME_DIGITS}d}{_STORE_SUFFIX}"


def index_path(folder: str, base_offset: int) -> str:
    return f"{folder}/{base_offset:0{_NAME_DIGITS}d}{_INDEX_SUFFIX}"


def time_index_path(folder: str, base_offset: int) -> str:
    return f"{folder}/{base_offset:0{_NAME_DIGITS}d}{_TIME_INDEX_SUFFIX}"


def base_offsets(names: Sequence[str], suffix: str = _STORE_SUFFIX) -> list[int]:
    """Return the base offsets of the stores among the names of a folder, ascending."""
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return sorted(
        int(stem)
        for stem in stems
        if len(stem) == _NAME_DIGITS and stem.isascii() and stem.isdigit()
    )


def remove_files(files: FileSystem, folder: str, names: Sequence[str], keep: Sequence[int]) -> bool:
    """Remove the files of segments not in `keep`; return whether there were any."""
    kept = set(keep)
    doomed = [
        name
        for suffix in (_STORE_SUFFIX, _INDEX_SUFFIX, _TIME_INDEX_SUFFIX)
        for name in names
        for base_offset in base_offsets([name], suffix)
        if base_offset not in kept
    ]
    for name in doomed:
        files.remove(f"{folder}/{name}")
    return bool(doomed)
