"""Streams that are compacted: clients that append under a few keys, and what must hold of them.

- A record that is there is the one that was appended at its offset, unchanged.
- A record that is missing has a newer one of its key, or is a tombstone.
- In the end every key's newest record is there; if that is a tombstone and gone, nothing older of
  its key is left.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import xxhash

from ...storage.batch import Batch
from ...storage.codec import CODECS, pack, unpack
from ...storage.record import Record, StoredRecord, decode_rows, encode_records
from .. import policy
from ..commands import AppendBatch, Command
from ..errors import OutcomeUnknown, Refused
from ..stream import Stream
from ..types import Receipt
from .clients import KEYED_STREAM, Caller, wall_ms_of
from .node import SimNode
from .world import World

if TYPE_CHECKING:
    from .checks import Checks

KEYS = 6
"""In use at a time: one after the other falls out of use, some of them with a tombstone."""
KEY_LASTS_S = 1.0
LONG_KEY = b"a longer key " * 5
THINK_S = 0.2
TOMBSTONE_SHARE = 0.15
_BODY_BYTES_MAX = 1 << 20


class KeyedAppender(Caller):
    """Appends small batches of records with keys; every append is repeated until it is done."""

    def __init__(self, world: World, rng: Random, number: int) -> None:
        super().__init__(world, rng)
        self._number = number
        self._count = 0

    def begin(self) -> None:
        if self.world.is_healing:
            return
        self._count += 1
        records = [self._record(each) for each in range(self.rng.choice((1, 1, 2, 5)))]
        self._attempt(records, f"keyed {self._number} {self._count}", self.rng.choice((0, 0, 1, 2)))

    def _record(self, number: int) -> Record:
        oldest = int(self.world.scheduler.now / KEY_LASTS_S)
        key = b"key %d" % (oldest + self.rng.randrange(KEYS))
        key = LONG_KEY if self.rng.random() < 0.1 else key
        if self.rng.random() < TOMBSTONE_SHARE:
            return Record(None, key)
        filler = self.rng.randbytes(4) * self.rng.choice((1, 10, 100, 600))
        value = b"%d.%d.%d %b" % (self._number, self._count, number, filler)
        headers = {"a": "b"} if self.rng.random() < 0.2 else {}
        return Record(value, key, headers, self.rng.choice((None, None, 1, 10**13)))

    def _attempt(self, records: list[Record], key: str, codec: int) -> None:
        make = partial(self._command, records, key, codec)
        self.call(make, partial(self._ended, records, key, codec))

    def _command(self, records: list[Record], key: str, codec: int, node: SimNode) -> Command:
        assert codec in CODECS.values()
        body = encode_records(records)
        codec, packed = pack(codec, body)
        stamps = [record.timestamp for record in records if record.timestamp is not None]
        return AppendBatch(
            KEYED_STREAM,
            packed,
            len(records),
            max(len(record.value or b"") for record in records),
            wall_ms_of(self.world, node),
            max(stamps, default=None),
            None,
            None,
            key,
            xxhash.xxh3_128_digest(body),
            codec,
        )

    def _ended(self, records: list[Record], key: str, codec: int, outcome: Any) -> None:
        if isinstance(outcome, Receipt):
            self.world.checks.acknowledged(outcome)
            self.later(self.rng.expovariate(1 / THINK_S), self.begin)
        elif isinstance(outcome, OutcomeUnknown | Refused):
            delay_s = self.rng.uniform(0.01, 0.1)
            self.later(delay_s, partial(self._attempt, records, key, codec))


class KeyedRecords:
    """All records ever appended to streams that are compacted, and what may be missing of them."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._streams: dict[int, dict[int, StoredRecord]] = {}
        self._newest: dict[int, dict[bytes | None, int]] = {}

    def note(self, stream: Stream, item: AppendBatch, receipt: Receipt) -> None:
        """A batch was applied, by the first node to do so."""
        if not policy.compacts(stream.config):
            return
        records = self._streams.setdefault(stream.id, {})
        newest = self._newest.setdefault(stream.id, {})
        rows = decode_rows(unpack(item.codec, item.body, _BODY_BYTES_MAX))
        for offset, (key, value, headers, own) in enumerate(rows, receipt.first_offset):
            stamp = receipt.timestamp if own is None else own
            records[offset] = StoredRecord(offset, stamp, key, value, headers or {})
            newest[key] = offset

    def knows(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def check(self, where: str, stream_id: int, batches: list[Batch]) -> None:
        """What was read is what was appended, but for what compaction may take away."""
        known = self._streams[stream_id]
        for batch in batches:
            found = {record.offset: record for record in batch.records()}
            for offset in range(batch.base_offset, batch.next_offset):
                record, wanted = found.get(offset), known.get(offset)
                if wanted is None or record not in (wanted, None):
                    text = f"{where}: stream {stream_id} at {offset}"
                    self._checks.violate("wrong record", text)
                elif record is None:
                    self._check_hole(where, stream_id, wanted)

    def _check_hole(self, where: str, stream_id: int, missing: StoredRecord) -> None:
        is_newest = self._newest[stream_id][missing.key] == missing.offset
        if missing.key is None or (is_newest and missing.value is not None):
            text = f"{where}: stream {stream_id} has lost {missing.offset} of key {missing.key!r}"
            self._checks.violate("a newest record is lost", text)

    def check_end(self, where: str, stream: Stream, batches: list[Batch]) -> None:
        """Nothing a tombstone deleted has come back."""
        if stream.id not in self._streams:
            return
        left = {record.offset: record for batch in batches for record in batch.records()}
        for key, offset in self._newest[stream.id].items():
            if key is None or offset < stream.log_start_offset or offset in left:
                continue
            older = [each for each in left if left[each].key == key]
            if [each for each in older if each >= stream.log_start_offset]:
                text = f"{where}: {older} of key {key!r} outlive the tombstone at {offset}"
                self._checks.violate("a deleted record is back", text)
