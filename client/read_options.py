"""What a read asks for, checked before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .arguments import checked_choice, checked_count, checked_offset

CONSISTENCIES = ("local", "bounded", "linearizable")
ORDERS = ("asc", "desc")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Raises TypeError or ValueError, naming the option."""

    offset: int | None = None
    limit: int = 500
    max_bytes: int | None = None
    timestamp: int | None = None
    until: int | None = None
    key: bytes | str | None = None
    wait_ms: int = 0
    consistency: str = "local"
    max_lag_ms: int | None = None
    after: int | None = None
    order: str = "asc"

    def __post_init__(self) -> None:
        if self.offset is not None:
            checked_offset("offset", self.offset)
        checked_count("limit", self.limit, least=1)
        checked_count("wait_ms", self.wait_ms)
        for name in ("max_bytes", "timestamp", "until", "max_lag_ms", "after"):
            value = getattr(self, name)
            if value is not None:
                checked_count(name, value)
        if self.offset is not None and self.timestamp is not None:
            raise ValueError("offset and timestamp exclude each other")
        if self.key is not None and not isinstance(self.key, bytes | str):
            raise TypeError(f"key: bytes or str is wanted, not {type(self.key).__name__}")
        checked_choice("consistency", self.consistency, CONSISTENCIES)
        checked_choice("order", self.order, ORDERS)

    @property
    def takes_batches(self) -> bool:
        """Can stored batches answer this, without the node looking into them?"""
        return self.key is None and self.order == "asc"

    def query(self) -> Mapping[str, int | str | bytes | None]:
        """Return the parameters that differ from the defaults of the API."""
        return {
            "offset": self.offset,
            "timestamp": self.timestamp,
            "limit": self.limit,
            "max_bytes": self.max_bytes,
            "until": self.until,
            "key": self.key,
            "wait_ms": self.wait_ms or None,
            "consistency": None if self.consistency == "local" else self.consistency,
            "max_lag_ms": self.max_lag_ms,
            "after": self.after,
            "order": None if self.order == "asc" else self.order,
        }
