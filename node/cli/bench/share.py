"""What one worker counted, and what all of them make together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from .case import Case, Kind
from .histogram import Histogram, merged

PERCENTS = (50.0, 90.0, 99.0, 99.9)


@dataclass(slots=True)
class Share:
    records: int = 0
    """Acknowledged or delivered in the measured time."""
    total: int = 0
    """The same with warm-up and what came late."""
    errors: int = 0
    error: str | None = None
    """The first one."""
    seconds: float = 0.0
    """From the start to the end of the work; longer than asked where the end came late."""
    cpu_s: float = 0.0
    latencies: Histogram = field(default_factory=Histogram)

    def fail(self, failure: BaseException, count: int = 1) -> None:
        self.errors += count
        self.error = self.error or f"{type(failure).__name__}: {failure}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "total": self.total,
            "errors": self.errors,
            "error": self.error,
            "seconds": self.seconds,
            "cpu_s": self.cpu_s,
            "latencies": self.latencies.to_dict(),
        }

    @classmethod
    def from_dict(cls, shape: dict[str, Any]) -> Self:
        return cls(**{**shape, "latencies": Histogram.from_dict(shape["latencies"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case's figures. For a tail, records and latencies are those delivered to readers."""

    case: Case
    records: int
    total: int
    seconds: float
    """What `records` are to be divided by."""
    errors: int
    error: str | None
    client_cpu_s: float
    latencies: Histogram

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def mb_per_s(self) -> float:
        """10**6 bytes of values."""
        return self.records_per_s * self.case.value_bytes / 1e6

    @property
    def client_cpu_us(self) -> float:
        """CPU time of all workers per record, microseconds."""
        return self.client_cpu_s / self.total * 1e6 if self.total else 0.0

    @property
    def latency_ms(self) -> dict[str, float] | None:
        """None for a catch-up, which has none."""
        if not self.latencies.count:
            return None
        percentiles = {f"p{p:g}": self.latencies.percentile_s(p) * 1000 for p in PERCENTS}
        return percentiles | {"max": self.latencies.max_s * 1000}

    def to_dict(self) -> dict[str, Any]:
        """For programs; the case's settings among them."""
        case = self.case
        settings = {
            name: getattr(case, name)
            for name in ("value_bytes", "producers", "readers", "streams", "processes", "rate")
        }
        return {
            "case": case.name,
            "kind": case.kind.value,
            **settings,
            "records": self.records,
            "seconds": round(self.seconds, 3),
            "records_per_s": round(self.records_per_s, 1),
            "mb_per_s": round(self.mb_per_s, 3),
            "latency_ms": _rounded(self.latency_ms),
            "client_cpu_us_per_record": round(self.client_cpu_us, 2),
            "errors": self.errors,
            "error": self.error,
        }


def outcome_of(case: Case, shares: Sequence[tuple[str, Share]]) -> Outcome:
    """Add up the shares of all workers, each with its role."""
    counting = "read" if case.kind in (Kind.CATCH_UP, Kind.TAIL) else "produce"
    counted = [share for role, share in shares if role == counting]
    everyone = [share for _, share in shares]
    longest = max(share.seconds for share in counted)
    return Outcome(
        case=case,
        records=sum(share.records for share in counted),
        total=sum(share.total for share in counted),
        seconds=longest if case.kind is Kind.CATCH_UP else case.seconds,
        errors=sum(share.errors for share in everyone),
        error=next((share.error for share in everyone if share.error), None),
        client_cpu_s=sum(share.cpu_s for share in everyone),
        latencies=merged(share.latencies for share in counted),
    )


def _rounded(figures: dict[str, float] | None) -> dict[str, float] | None:
    return figures and {name: round(figure, 3) for name, figure in figures.items()}
