"""Copies of damaged batches: whether they belong where the damage is, and what there is to write.

Batches are found again byte for byte on other nodes. A copy is written in place: what it overwrites
is unreadable, and a write that is torn leaves it so, which the checksum shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .batch import BATCH_HEADER_SIZE, Batch, batch_size, parse_batch
from .errors import BadCopy, CorruptBatch
from .filesystem import Buffer
from .store import Store


@dataclass(frozen=True, slots=True)
class Gap:
    """The place in a store from the first damaged batch on."""

    position: int
    end_offset: int
    """Where the store's last batch ends."""
    chain: bytes | None
    """Digest of the batch before; None if there is none that can be read."""
    last_digest: bytes | None = None
    """Digest of the store's last batch, where that is known: no batch behind would tell."""

    def check(self, batches: Sequence[Batch], store: Store) -> None:
        """Raise BadCopy unless `batches` fit in here: without a gap, with the chain of digests from
        what is before to what is behind, and ending where the store does if they are its last.
        """
        chain, position, due_offset = self.chain, self.position, batches[0].base_offset
        for batch in batches:
            if batch.base_offset != due_offset:
                raise BadCopy(f"base offset {batch.base_offset} where {due_offset} is due")
            if chain is not None and batch.chain != chain:
                raise BadCopy(f"the batch at offset {due_offset} continues another history")
            chain, position, due_offset = batch.digest(), position + batch.size, batch.next_offset
        is_last = due_offset == self.end_offset
        if (
            due_offset > self.end_offset
            or position > store.size
            or is_last != (position == store.size)
        ):
            raise BadCopy(f"offset {due_offset} at byte {position}: not as long as what was here")
        if is_last and self.last_digest not in (None, chain):
            raise BadCopy(f"the last batch of a compacted segment at offset {due_offset}")
        behind = _readable(store, position)
        if behind is not None and behind.base_offset == due_offset and behind.chain != chain:
            raise BadCopy(f"the batch at offset {due_offset} does not continue them")


def differing(
    batches: Sequence[Batch], position: int, store: Store
) -> Iterator[tuple[int, list[Buffer]]]:
    """Yield (position, bytes) for what is not in the store as it is in `batches`."""
    start, buffers = position, list[Buffer]()
    for batch in batches:
        if store.read_at(position, batch.size) == batch.data:
            if buffers:
                yield start, buffers
            start, buffers = position + batch.size, []
        else:
            buffers.append(batch.data)
        position += batch.size
    if buffers:
        yield start, buffers


def _readable(store: Store, position: int) -> Batch | None:
    try:
        size = batch_size(store.read_at(position, BATCH_HEADER_SIZE), 0)
        return parse_batch(store.read_at(position, size))
    except CorruptBatch:
        return None
