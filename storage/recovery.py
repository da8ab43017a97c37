"""Find out, when a log is opened, what its files hold.

Two ways. With a checkpoint's word (`cut_to_vouched`) everything behind that word is dropped and
nothing before it may be missing. Without (`recover_last`) only the last segment can be torn, since
a stand-alone log syncs a segment before it begins the next one; it is walked from its beginning.

There, a bad batch with nothing good behind it is a torn tail: never synced, never promised, cut. A
bad batch with a good one behind it is damage: nothing is cut. The good one is searched for byte by
byte, because the bad one's size cannot be believed. A torn batch may carry whole batches inside of
its records (a log kept in a log), so what is found counts only if its offset could follow here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .batch import BATCH_HEADER_SIZE, MAGIC, VERSION, Batch, batch_size, parse_batch
from .errors import CorruptBatch, Damaged
from .filesystem import FileSystem
from .index import START, IndexEntry, read_entries
from .names import SegmentName, index_path, store_path
from .segment import Segment
from .store import Store
from .walk import Walk

_logger = logging.getLogger(__name__)

_SEARCH_CHUNK_BYTES = 1024 * 1024
_MARK = MAGIC.to_bytes(2, "little") + bytes([VERSION])
_MARK_POSITION = 4


def stored_sizes(
    files: FileSystem, folder: str, names: Sequence[SegmentName]
) -> list[tuple[int, int]]:
    """Return (base offset, bytes) of each segment's store, as its file is long."""
    return [(name.base_offset, _file_size(files, store_path(folder, *name))) for name in names]


def without_replaced(
    files: FileSystem, folder: str, names: Sequence[SegmentName], interval: int
) -> list[SegmentName]:
    """Return the segments of a stand-alone log, without those that compaction has replaced.

    A segment that compaction made has its name only when it is whole and durable, so it counts from
    then on. Raises Damaged if it is not whole all the same.
    """
    ranges = [
        (name, _end_offset(files, folder, name, interval)) for name in names if name.generation
    ]
    return [
        name
        for name in names
        if not any(
            other.base_offset <= name.base_offset < end and other.generation > name.generation
            for other, end in ranges
        )
    ]


def _end_offset(files: FileSystem, folder: str, name: SegmentName, interval: int) -> int:
    """Return where a sealed segment ends; reads what lies behind the newest index entry."""
    path, hints = store_path(folder, *name), index_path(folder, *name)
    store = Store.open(files, path, is_durable=True)
    try:
        try:
            entries = read_entries(files, hints) if files.exists(hints) else []
            return _walked(store, name, entries[-1] if entries else START, interval)
        except (ValueError, CorruptBatch):
            return _walked(store, name, START, interval)
    except CorruptBatch as error:
        raise Damaged(path, error.position, error.reason) from error
    finally:
        store.close()


def _walked(store: Store, name: SegmentName, start: IndexEntry, interval: int) -> int:
    walk = Walk(name.base_offset, start, interval)
    walk.run(store)
    return walk.next_offset


def cut_to_vouched(
    files: FileSystem,
    folder: str,
    segments: Sequence[tuple[SegmentName, int]],
    *,
    fills: bool,
) -> list[int]:
    """Cut each store to its vouched length; return the base offsets of those that were filled.

    If one is missing or shorter, raises Damaged before anything is cut, or `fills` it with zeros:
    damage like any other then. Neither is synced: after a power loss the checkpoint's word is the
    same, and so is the cut.
    """
    others, filled = [], []
    for name, size in segments:
        path = store_path(folder, *name)
        found = _file_size(files, path) if files.exists(path) else None
        if found is None or found < size:
            where = "missing" if found is None else "ends here"
            damage = Damaged(path, found or 0, f"{where}; {size} bytes were vouched for")
            if not fills:
                raise damage
            _logger.warning("a segment lacks bytes", extra={"reason": str(damage)})
            filled.append(name.base_offset)
        if found != size:
            others.append((path, size))
    for path, size in others:
        file = files.open(path, create=not files.exists(path))
        try:
            file.truncate(size)
        finally:
            file.close()
    return filled


def recover_last(files: FileSystem, folder: str, name: SegmentName, interval: int) -> Segment:
    """Open the last segment of a stand-alone log, without its torn tail if it has one.

    Raises Damaged if there is a good batch behind a bad one; nothing is cut then.
    """
    store = Store.open(files, store_path(folder, *name), is_durable=False)
    try:
        walk = Walk(name.base_offset, START, interval)
        try:
            walk.run(store)
        except CorruptBatch as error:
            _cut_tail(store, walk, error)
    except BaseException:
        store.close()
        raise
    return Segment.adopt(files, folder, name, interval, store=store, walk=walk)


def _cut_tail(store: Store, walk: Walk, error: CorruptBatch) -> None:
    good = _find_good(store, walk.position, walk.next_offset)
    if good is not None:
        reason = f"{error.reason}; a good batch follows at byte {good}"
        raise Damaged(store.path, walk.position, reason) from error
    facts = {"path": store.path, "position": walk.position, "cut": store.size - walk.position}
    _logger.warning("torn tail cut", extra=facts)
    store.cut(walk.position)


def _find_good(store: Store, position: int, due_offset: int) -> int | None:
    """Return where at or behind `position` a good batch begins that could follow in this log."""
    start = position
    while start + BATCH_HEADER_SIZE <= store.size:
        chunk = store.read_at(start, _SEARCH_CHUNK_BYTES)
        mark = chunk.find(_MARK, _MARK_POSITION)
        while mark >= 0:
            candidate = start + mark - _MARK_POSITION
            if _follows(store, candidate, due_offset, candidate - position):
                return candidate
            mark = chunk.find(_MARK, mark + 1)
        # The next chunk begins early enough to hold a mark that this one holds half of.
        start += max(1, len(chunk) - _MARK_POSITION - len(_MARK) + 1)
    return None


def _follows(store: Store, position: int, due_offset: int, distance: int) -> bool:
    """Is there a good batch whose offset fits behind `distance` bytes of unreadable batches?

    A record takes more than a byte, so in that many bytes there were fewer offsets than bytes.
    """
    try:
        size = batch_size(store.read_at(position, BATCH_HEADER_SIZE), 0)
        batch: Batch = parse_batch(store.read_at(position, size))
    except CorruptBatch:
        return False
    return distance == 0 or 0 < batch.base_offset - due_offset < distance


def _file_size(files: FileSystem, path: str) -> int:
    file = files.open(path)
    try:
        return file.size()
    finally:
        file.close()
