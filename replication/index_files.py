"""Where a node keeps what its indexes and filters hold. Derived: any of it may be deleted.

    indexes/0000000042/0000000007/               a folder per index: stream id, index id
                                  data.mdb …     a btree index, see storage/value_index.py
                                  <base>-<end>.bloom   a bloom index: a filter per sealed segment
    indexes/0000000042/key/<base>-<end>.bloom    the filters that reads with `key=` use

On a real disk, also in a simulation: LMDB maps its file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from ..storage.segment_filter import SegmentFilter, load_filter
from ..storage.value_index import ValueIndex

FILTERS_BYTES_MAX: Final = 64 << 20
"""Loaded filters; the least recently used go first."""
KEY: Final = "key"
"""The filters that no index asked for."""
_STREAM_NAME: Final = re.compile(r"[0-9]{10}", re.ASCII)
_FILTER_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{20})\.bloom", re.ASCII)

Place: TypeAlias = tuple[int, int | str]
"""Stream id, and index id or KEY."""


class IndexFiles:
    def __init__(self, root: str, incarnation: str, *, durable: bool = True) -> None:
        """`incarnation`: of the data folder; what was built from another one's data is not used."""
        self._root = root
        self._incarnation = incarnation
        self._durable = durable
        self._trees: dict[Place, ValueIndex] = {}
        self._loaded: OrderedDict[tuple[Place, int], SegmentFilter] = OrderedDict()
        self._loaded_bytes = 0

    def _folder(self, place: Place) -> str:
        stream_id, what = place
        name = f"{what:010d}" if isinstance(what, int) else what
        return f"{self._root}/{stream_id:010d}/{name}"

    def _identity(self, place: Place) -> bytes:
        return f"{self._incarnation} {place[0]} {place[1]}".encode()

    # ---- on the index lane

    def clean(self, kept: Iterable[Place]) -> list[int]:
        """Remove all folders but those of `kept` and key filters of their streams' ids; return the
        ids of the streams that have key filters.
        """
        paths = {self._folder(place) for place in kept}
        streams = {os.path.dirname(path) for path in paths}
        keyed = []
        for name in _listed(self._root):
            stream = f"{self._root}/{name}"
            for inner in _listed(stream):
                path = f"{stream}/{inner}"
                if inner == KEY and stream in streams and _STREAM_NAME.fullmatch(name):
                    keyed.append(int(name))
                elif path not in paths:
                    shutil.rmtree(path, ignore_errors=True)
            if stream not in streams:
                shutil.rmtree(stream, ignore_errors=True)
        return keyed

    def open_tree(self, place: Place, is_far: Callable[[int], bool]) -> ValueIndex:
        """`is_far`: is so much missing behind this offset that it is to be filled without syncs?
        Raises NoRoom, OSError.
        """
        folder, identity = self._folder(place), self._identity(place)
        tree = ValueIndex.open(folder, identity, backfill=False, durable=self._durable)
        if is_far(tree.through) and not tree.is_backfilling:
            tree.close()
            tree = ValueIndex.open(folder, identity, backfill=True, durable=self._durable)
        self._trees[place] = tree
        return tree

    def remove(self, place: Place) -> None:
        tree = self._trees.pop(place, None)
        if tree is not None:
            tree.close()
        shutil.rmtree(self._folder(place), ignore_errors=True)

    def kept_filters(self, place: Place) -> dict[int, int]:
        """End offsets of the segments that have a filter, by base offset."""
        os.makedirs(self._folder(place), 0o750, exist_ok=True)
        found = map(_FILTER_NAME.fullmatch, _listed(self._folder(place)))
        return {int(match[1]): int(match[2]) for match in found if match}

    def keep_filter(self, place: Place, built: SegmentFilter) -> None:
        path = self._filter_path(place, built.base_offset, built.end_offset)
        built.save(path, self._identity(place))

    def remove_filter(self, place: Place, base_offset: int, end_offset: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._filter_path(place, base_offset, end_offset))

    def _filter_path(self, place: Place, base_offset: int, end_offset: int) -> str:
        return f"{self._folder(place)}/{base_offset:020d}-{end_offset:020d}.bloom"

    # ---- on the streams lane

    def filter_of(self, place: Place, base_offset: int, end_offset: int) -> SegmentFilter | None:
        """The filter of a segment; None if its file is not what was written."""
        at = (place, base_offset)
        found = self._loaded.get(at)
        if found is not None and found.end_offset == end_offset:
            self._loaded.move_to_end(at)
            return found
        path = self._filter_path(place, base_offset, end_offset)
        found = load_filter(path, self._identity(place))
        if found is None or (found.base_offset, found.end_offset) != (base_offset, end_offset):
            return None
        old = self._loaded.pop(at, None)
        self._loaded[at] = found
        self._loaded_bytes += found.size_bytes - (old.size_bytes if old is not None else 0)
        while self._loaded_bytes > FILTERS_BYTES_MAX and len(self._loaded) > 1:
            self._loaded_bytes -= self._loaded.popitem(last=False)[1].size_bytes
        return found

    def close(self) -> None:
        """Once no lane runs any more."""
        for tree in self._trees.values():
            tree.close()
        self._trees.clear()


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
