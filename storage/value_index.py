"""One secondary index on disk: an LMDB B+tree of (value, offset).

    key    value as `index_values.encode` has it │ offset, u64 big-endian         nothing behind it
    key 0  msgpack [version, identity, through, witness, entries, digest]

- `through`: every record below it that has the value is in the tree. Written in one transaction
  with the entries, so it is never ahead of them.
- Derived: an entry is a hint, to be checked against its record. What is missing, torn, another
  format's or another node's is removed and begun anew. LMDB has no checksums, so rot inside a page
  is noticed by a walk over all entries only: `entries` and `digest` are what those below `through`
  add up to (`tree_check.py`).
- A commit syncs, except in a back-fill: then `backfilling` names the boot of the machine, and a
  tree with that mark is trusted only by the same boot, because the kernel still had all pages.

Two threads: `find` may be called while another one writes. LMDB's readers see the last commit and
wait for nobody; the lock is held only while the map is replaced.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from .errors import StorageError
from .lmdb_file import boot, sync_folder, why_torn, write_durably
from .tree_check import FIRST_KEY, OFFSET_SIZE, TreeCheck, TreeSum

if TYPE_CHECKING:
    import lmdb

logger = logging.getLogger(__name__)

SLICE_ENTRIES: Final = 1000
"""So many are put while holding Python's lock: about a millisecond."""
_VERSION: Final = 2
_META_KEY: Final = b"\0"
_MAP_BYTES_MIN: Final = 1 << 26
_MARK: Final = "backfilling"

Witness: TypeAlias = tuple[int, int]
"""Term and index of the batch that holds the newest record covered."""


class BadIndex(StorageError):
    """The index's files are not what was written; remove them and begin anew."""


class NoRoom(StorageError):
    """The disk is full; nothing of the transaction was kept."""


class Hit(NamedTuple):
    value: bytes
    """As encoded in the tree."""
    offset: int


class Found(NamedTuple):
    through: int
    """As of the tree that was looked into."""
    hits: list[Hit]
    stopped_at: Hit | None
    """The last entry looked at; None if there is none behind it."""


class _Meta(msgspec.Struct, frozen=True, array_like=True):
    version: int
    identity: bytes
    through: int
    witness: Witness | None
    entries: int
    digest: int


class ValueIndex:
    def __init__(self, folder: str, identity: bytes, *, durable: bool) -> None:
        """Used by `open`."""
        self.through = 0
        self.witness: Witness | None = None
        self._sum = TreeSum()
        self.is_backfilling = False
        self._folder = folder
        self._identity = identity
        self._durable = durable
        self._env: lmdb.Environment
        self._replacing = threading.Lock()
        self._is_closed = False

    @classmethod
    def open(
        cls, folder: str, identity: bytes, *, backfill: bool, durable: bool = True
    ) -> ValueIndex:
        """Open the tree in `folder`, or begin one; `identity` says what it is of. Blocks.

        With `backfill` nothing is synced until `end_backfill`. Not `durable`: never. Raises
        NoRoom, OSError.
        """
        index = cls(folder, identity, durable=durable)
        reason = index._why_not()
        if reason is None:
            try:
                index._open(backfill=backfill)
            except BadIndex as error:
                index.close()
                reason = str(error)
            else:
                return index
        logger.warning(
            "an index is not usable, builds it anew", extra={"path": folder, "reason": reason}
        )
        shutil.rmtree(folder)
        index = cls(folder, identity, durable=durable)
        index._open(backfill=backfill)
        return index

    def _why_not(self) -> str | None:
        """Return why what is in the folder must not be opened, if there is a reason."""
        data = f"{self._folder}/data.mdb"
        if not os.path.exists(data):
            return None
        mark = f"{self._folder}/{_MARK}"
        if os.path.exists(mark):
            with open(mark) as file:
                if file.read() != boot():
                    return "the machine went down while it was built"
        return why_torn(data)

    def _open(self, *, backfill: bool) -> None:
        os.makedirs(self._folder, 0o750, exist_ok=True)
        if self._durable:
            sync_folder(os.path.dirname(self._folder))
        if backfill and self._durable:
            write_durably(f"{self._folder}/{_MARK}", boot())
        self.is_backfilling = backfill or os.path.exists(f"{self._folder}/{_MARK}")
        self._map()
        import lmdb

        try:
            with self._env.begin() as transaction:
                packed = transaction.get(_META_KEY)
                is_empty = not transaction.stat()["entries"]
        except lmdb.Error as error:
            raise BadIndex(str(error)) from error
        if packed is None and is_empty:
            return
        meta = _decode(packed)
        if meta.version != _VERSION or meta.identity != self._identity:
            raise BadIndex("it is another index's")
        self.through, self.witness = meta.through, meta.witness
        self._sum = TreeSum(meta.entries, meta.digest)

    def _map(self) -> None:
        import lmdb

        try:
            size = os.path.getsize(f"{self._folder}/data.mdb")
        except FileNotFoundError:
            size = 0
        try:
            self._env = lmdb.open(
                self._folder,
                map_size=1 << max(_MAP_BYTES_MIN, 2 * size).bit_length(),
                sync=self._durable and not self.is_backfilling,
                metasync=False,
                readahead=False,
                max_spare_txns=1,
                mode=0o640,
            )
        except lmdb.Error as error:
            raise _failure(error) from error

    def add(
        self,
        entries: Sequence[bytes],
        through: int,
        witness: Witness | None,
        passed: TreeSum | None = None,
    ) -> None:
        """Put sorted `entries` and set `through`, all of it or nothing.

        Entries of records above `through` are not seen until it passes them; `passed` is the sum of
        those it passes now, by default these.

        Raises BadIndex, NoRoom.
        """
        import lmdb

        total = self._sum.plus(TreeSum.of(entries) if passed is None else passed)

        while True:
            try:
                self._write(entries, self._meta(through, witness, total))
                break
            except lmdb.MapFullError:
                with self._replacing:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:
                raise _failure(error) from error
        self.through, self.witness, self._sum = through, witness, total

    def _meta(self, through: int, witness: Witness | None, total: TreeSum) -> bytes:
        return msgspec.msgpack.encode(_Meta(_VERSION, self._identity, through, witness, *total))

    def _write(self, entries: Sequence[bytes], meta: bytes) -> None:
        with self._env.begin(write=True) as transaction:
            with transaction.cursor() as cursor:
                for start in range(0, len(entries), SLICE_ENTRIES):
                    part = entries[start : start + SLICE_ENTRIES]
                    cursor.putmulti([(key, b"") for key in part])
                    time.sleep(0)  # whoever waits for Python's lock gets it
            transaction.put(_META_KEY, meta)

    def end_backfill(self) -> None:
        """Make everything durable, and every commit from now on. Raises BadIndex, NoRoom."""
        import lmdb

        if not self.is_backfilling:
            return
        try:
            if self._durable:
                self._env.sync(True)
            with self._replacing:
                self._env.close()
                self.is_backfilling = False
                self._map()
        except lmdb.Error as error:
            raise _failure(error) from error
        if self._durable:
            os.unlink(f"{self._folder}/{_MARK}")
            sync_folder(self._folder)

    def find(
        self,
        start: bytes,
        end: bytes,
        *,
        offsets: range,
        count_max: int,
        visits_max: int,
        is_reverse: bool = False,
    ) -> Found:
        """Return what lies in `[start, end)` of the tree, from its end if `is_reverse`.

        Only records in `offsets` count, and below `through`: what lies above may be there in part,
        as `add` was called with some of the entries. It stops after `count_max` of them, and after
        looking at `visits_max` entries. Raises BadIndex.
        """
        import lmdb

        try:
            with self._replacing:
                if self._is_closed:
                    return Found(0, [], None)
                with self._env.begin() as transaction:
                    packed = transaction.get(_META_KEY)
                    through = _decode(packed).through if packed is not None else 0
                    with transaction.cursor() as cursor:
                        return _walk(
                            cursor, start, end, offsets, count_max, visits_max, through, is_reverse
                        )
        except lmdb.Error as error:
            raise BadIndex(str(error)) from error

    def prune(self, at: bytes, below: int, visits_max: int) -> bytes | None:
        """Remove entries of records below offset `below` among the next `visits_max` from `at` on;
        return where to go on, None at the end. Raises BadIndex, NoRoom.
        """
        import lmdb

        try:
            with self._env.begin(write=True) as transaction:
                removed, next_at = _prune(transaction, max(at, FIRST_KEY), below, visits_max)
                total = self._sum.minus(
                    TreeSum.of(key for key in removed if split(key).offset < self.through)
                )
                if removed:
                    meta = self._meta(self.through, self.witness, total)
                    transaction.put(_META_KEY, meta)
        except lmdb.Error as error:
            raise _failure(error) from error
        self._sum = total
        return next_at

    def begin_check(self) -> TreeCheck:
        """Begin a walk over all entries, to be ended before anything is pruned. Raises BadIndex."""
        import lmdb

        try:
            with self._env.begin() as transaction:
                packed = transaction.get(_META_KEY)
        except lmdb.Error as error:
            raise BadIndex(str(error)) from error
        if self.through and packed != self._meta(self.through, self.witness, self._sum):
            raise BadIndex("it does not say how much is in it")
        return TreeCheck(self.through, self._sum)

    def check(self, walk: TreeCheck, visits_max: int) -> bool:
        """Go on with the next `visits_max` entries; is that all? Raises BadIndex if what was
        written is not there.
        """
        import lmdb

        try:
            with self._env.begin() as transaction:
                is_done = walk.step(transaction, visits_max)
        except lmdb.Error as error:
            raise BadIndex(str(error)) from error
        if walk.fault is not None:
            raise BadIndex(walk.fault)
        return is_done

    def close(self) -> None:
        """What `add` returned from stays; a second call does nothing."""
        with self._replacing:
            self._is_closed = True
            if hasattr(self, "_env"):
                self._env.close()


def _prune(
    transaction: lmdb.Transaction, at: bytes, below: int, visits_max: int
) -> tuple[list[bytes], bytes | None]:
    """Return what was removed, and where to go on."""
    removed: list[bytes] = []
    with transaction.cursor() as cursor:
        is_there = cursor.set_range(at)
        for _ in range(visits_max):
            if not is_there:
                return removed, None
            key = bytes(cursor.key())
            if split(key).offset < below:
                removed.append(key)
                is_there = cursor.delete()
            else:
                is_there = cursor.next()
        return removed, bytes(cursor.key()) if is_there else None


def _walk(
    cursor: lmdb.Cursor,
    start: bytes,
    end: bytes,
    offsets: range,
    count_max: int,
    visits_max: int,
    through: int,
    is_reverse: bool,
) -> Found:
    hits: list[Hit] = []
    last: Hit | None = None
    for number, key in enumerate(_keys(cursor, start, end, is_reverse)):
        if len(hits) == count_max or number == visits_max:
            return Found(through, hits, last)
        last = split(key)
        if last.offset in offsets and last.offset < through:
            hits.append(last)
    return Found(through, hits, None)


def _keys(cursor: lmdb.Cursor, start: bytes, end: bytes, is_reverse: bool) -> Iterator[bytes]:
    if is_reverse:
        is_there = cursor.prev() if cursor.set_range(end) else cursor.last()
        if not is_there:
            return
        for found in cursor.iterprev(keys=True, values=False):
            key = bytes(found)
            if key < start or key == _META_KEY:
                return
            yield key
    elif cursor.set_range(max(start, FIRST_KEY)):
        for found in cursor.iternext(keys=True, values=False):
            key = bytes(found)
            if key >= end:
                return
            yield key


def entry(value: bytes, offset: int) -> bytes:
    return value + offset.to_bytes(OFFSET_SIZE, "big")


def split(key: bytes) -> Hit:
    return Hit(bytes(key[:-OFFSET_SIZE]), int.from_bytes(key[-OFFSET_SIZE:], "big"))


def _decode(packed: bytes | None) -> _Meta:
    try:
        return msgspec.msgpack.decode(packed or b"", type=_Meta)
    except msgspec.MsgspecError as error:
        raise BadIndex(f"it does not say what it is: {error}") from None


def _failure(error: Exception) -> StorageError:
    is_full = os.strerror(errno.ENOSPC) in str(error)
    return NoRoom(str(error)) if is_full else BadIndex(str(error))
