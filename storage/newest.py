"""Where the newest record of each key is, and so what compaction may take away."""

from __future__ import annotations

from hashlib import blake2b

from .batch import Batch

_KEY_BYTES_MAX = 32
_DIGEST_BYTES = 40


class NewestOffsets:
    """The offset of each key's newest record in a range; `add` takes that range's batches in order.

    Exact: a short key stands for itself, a longer one by a digest that nobody can forge.
    """

    def __init__(self, start_offset: int, keys_max: int) -> None:
        self.stopped_at: int | None = None
        """The offset of the first record there was no room for; nothing from there on counts."""
        self._start_offset = start_offset
        self._keys_max = keys_max
        self._offsets: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, batch: Batch) -> bool:
        """Count in the records of a batch; False once there is no room."""
        if self.stopped_at is not None:
            return False
        known, keys_max, start_offset = self._offsets, self._keys_max, self._start_offset
        offsets, rows = batch.rows()
        for offset, row in zip(offsets, rows, strict=True):
            key = row[0]
            if key is None or offset < start_offset:
                continue
            if len(key) > _KEY_BYTES_MAX:
                key = _digest(key)
            if len(known) >= keys_max and key not in known:
                self.stopped_at = offset
                return False
            known[key] = offset
        return True

    def mask(self, batch: Batch, tombstones_below: int) -> bytes:
        """Return which records of a batch stay: see `compaction`.

        A record goes if its key has a newer one in the range. So does a tombstone below
        `tombstones_below`. A record without a key stays for ever.
        """
        find = self._offsets.get
        offsets, rows = batch.rows()
        kept = bytearray(b"\1" * len(rows))
        for number, (offset, row) in enumerate(zip(offsets, rows, strict=True)):
            key = row[0]
            if key is None:
                continue
            newest = find(key if len(key) <= _KEY_BYTES_MAX else _digest(key), -1)
            if newest > offset or (row[1] is None and offset < tombstones_below):
                kept[number] = 0
        return bytes(kept)


def _digest(key: bytes) -> bytes:
    """Longer than any key that stands for itself."""
    return blake2b(key, digest_size=_DIGEST_BYTES).digest()
