"""The file of an offset index: `storage.index`."""

from __future__ import annotations

import itertools

from cute_logger.storage.index import START, IndexEntry, OffsetIndex, read_entries
from fuzz.choices import Choices
from fuzz.disk import Disk

_PATH = "/index"
_INTERVAL = 16


def target(data: bytes) -> None:
    """Whatever the file holds, the index is ascending and inside of the store, or empty."""
    choices = Choices(data)
    store_size = choices.below(1 << 32)
    content = _entries(choices) if choices.flag() else choices.rest()
    disk = Disk()
    disk.put(_PATH, content)
    index = OffsetIndex.open(disk, _PATH, _INTERVAL, store_size=store_size)
    entries = index.entries()
    assert all(low.position < high.position for low, high in itertools.pairwise(entries))
    assert all(entry.position < store_size for entry in entries)
    assert not (index.doubt and entries)
    for offset in [choices.below(1 << 32), *(entry.relative_offset for entry in entries)]:
        below = [entry for entry in entries if entry.relative_offset <= offset]
        assert index.find(offset) == (below[-1] if below else START)
    _check_unmapped(disk, index, store_size)
    last = index.last()
    if max(last.relative_offset, last.position) < 1 << 31:
        index.add(last.relative_offset + 1, last.position + _INTERVAL)
    wanted = index.entries()
    index.close()
    again = OffsetIndex.open(disk, _PATH, _INTERVAL, store_size=1 << 33)
    assert again.doubt is None
    assert again.entries() == wanted
    again.close()


def _check_unmapped(disk: Disk, index: OffsetIndex, store_size: int) -> None:
    """Who reads the file without mapping it finds the same."""
    try:
        entries = read_entries(disk, _PATH)
    except ValueError:
        assert not index.entries()
        return
    assert [entry for entry in entries if entry.position < store_size] == index.entries()


def _entries(choices: Choices) -> bytes:
    """Return entries that ascend, with a few that do not."""
    offset = position = 0
    entries = []
    for _ in range(choices.below(20)):
        offset += choices.below(64)
        position += _INTERVAL + choices.below(64)
        at = IndexEntry(offset, position)
        if choices.below(16) == 15:
            at = IndexEntry(choices.below(1 << 32), choices.below(1 << 32))
        entries.append(at.relative_offset << 32 | at.position)
    room = bytes(8 * choices.below(8)) + choices.binary(9)
    return b"".join(entry.to_bytes(8, "little") for entry in entries) + room
