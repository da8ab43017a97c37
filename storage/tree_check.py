"""What a tree's entries add up to, and a walk that compares: LMDB has no checksums.

The sum is kept beside the entries, in the same transactions, of those below `through`. It does not
depend on their order, so a walk may take any time while others add entries above. Each entry is
looked up from the root besides: a branch that leads elsewhere hides what is there.

Entries above `through` that a crash left, of records that were compacted or trimmed before they
were read again, are one too many: such a tree is built anew although nothing rotted.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    import lmdb

OFFSET_SIZE: Final = 8
FIRST_KEY: Final = b"\1"
_MODULUS: Final = 1 << 64


class TreeSum(NamedTuple):
    """Of a set of entries."""

    entries: int = 0
    digest: int = 0
    """Sum of their XXH3-64, modulo 2**64."""

    @classmethod
    def of(cls, entries: Iterable[bytes]) -> Self:
        digests = [xxh3_64_intdigest(entry) for entry in entries]
        return cls(len(digests), sum(digests) % _MODULUS)

    def plus(self, other: TreeSum) -> TreeSum:
        return TreeSum(self.entries + other.entries, (self.digest + other.digest) % _MODULUS)

    def minus(self, other: TreeSum) -> TreeSum:
        return TreeSum(self.entries - other.entries, (self.digest - other.digest) % _MODULUS)


class TreeCheck:
    """One walk over all entries, in steps between which entries may be added, and none removed."""

    def __init__(self, through: int, wanted: TreeSum) -> None:
        """`wanted` is the sum of the entries of records below `through`."""
        self.fault: str | None = None
        """Why the tree is not what was written."""
        self._through = through
        self._wanted = wanted
        self._seen = TreeSum()
        self._at = FIRST_KEY

    def step(self, transaction: lmdb.Transaction, visits_max: int) -> bool:
        """Look at the next entries; True at the end, or once there is a `fault`."""
        keys: list[bytes] = []
        with transaction.cursor() as cursor, transaction.cursor() as probe:
            if cursor.set_range(self._at):
                found = cursor.iternext(keys=True, values=False)
                keys = [bytes(key) for key in islice(found, visits_max)]
            for key in keys:
                if key < self._at:
                    self.fault = "its entries do not ascend"
                elif not probe.set_key(key):
                    self.fault = "an entry is not found where it should be"
                if self.fault is not None:
                    return True
                self._at = key + b"\0"
        counted = [key for key in keys if int.from_bytes(key[-OFFSET_SIZE:], "big") < self._through]
        self._seen = self._seen.plus(TreeSum.of(counted))
        if len(keys) == visits_max:
            return False
        if self._seen != self._wanted:
            self.fault = (
                f"{self._seen.entries} of {self._wanted.entries} entries are there, or others"
            )
        return True
