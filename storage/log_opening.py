"""How a log's segments are found when it is opened: by a checkpoint's word, or by the files alone.

What `recovery.py` decides about the files is taken over here into a log's list of segments.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import TypeAlias

from .errors import DamagedBatch
from .index import POSITION_MAX
from .log_segments import LogSegments
from .log_state import LogState
from .names import remove_new, segment_names
from .recovery import cut_to_vouched, recover_last, stored_sizes, without_replaced
from .segment import Segment

OnDamage: TypeAlias = Callable[[DamagedBatch], None]

_VOUCHED_UNSYNCED_MAX = 8


def prepare_folder(segments: LogSegments, *, is_vouched: bool) -> None:
    """Make the folder if it is missing; drop what an earlier process was about to make."""
    files, folder = segments.files, segments.folder
    if not files.exists(folder):
        files.make_folder(folder)
    remove_new(files, folder, files.listdir(folder))
    if not is_vouched:
        # An earlier process may have made it, and ended before its name was durable.
        segments.unsynced_folders.append(posixpath.dirname(folder) or ".")


def find(segments: LogSegments) -> tuple[int, int]:
    """Take what the files hold; return where the log begins and ends. Raises Damaged."""
    files, folder, interval = segments.files, segments.folder, segments.interval_bytes
    there = segment_names(files.listdir(folder))
    names = without_replaced(files, folder, there, interval)
    segments.remove_others(names)
    # What an earlier process wrote may be nowhere but in the page cache.
    segments.note_names_changed()
    if not names:
        return 0, 0
    segments.active = recover_last(files, folder, names[-1], interval)
    sizes = stored_sizes(files, folder, names[:-1])
    segments.note_sealed(names[:-1], sizes, names[-1].base_offset, {})
    return names[0].base_offset, segments.active.next_offset


def take_vouched(
    segments: LogSegments, vouched: LogState, on_damage: OnDamage | None
) -> tuple[int, int]:
    """Take what `vouched` lists, and remove all else; return where the log begins and ends.

    Raises Damaged; with `on_damage` a file that lacks bytes is filled up, and where its damage
    begins is told.
    """
    segments.unsynced_max = _VOUCHED_UNSYNCED_MAX
    files, folder, names = segments.files, segments.folder, vouched.names()
    named = [(name, size) for name, (_, size) in zip(names, vouched.segments, strict=True)]
    filled = cut_to_vouched(files, folder, named, fills=on_damage is not None)
    # One that was missing has a new name.
    if filled:
        segments.note_names_changed()
    segments.remove_others(names)
    if names:
        segments.active = Segment.open(
            files,
            folder,
            names[-1],
            segments.interval_bytes,
            next_offset=vouched.log_end_offset,
            tolerates_damage=True,
        )
        seams = {each.base_offset: each for each in vouched.compacted}
        sealed = vouched.segments[:-1]
        segments.note_sealed(names[:-1], sealed, names[-1].base_offset, seams)
    if on_damage is not None:
        for base_offset in filled:
            if base_offset < vouched.log_end_offset:
                _report(segments.holding(base_offset), on_damage)
    return vouched.log_start_offset, vouched.log_end_offset


def _report(segment: Segment, on_damage: OnDamage) -> None:
    """Find where the damage begins in a segment that was put zeros in."""
    try:
        segment.check(0, POSITION_MAX)
    except DamagedBatch as damage:
        on_damage(damage)
