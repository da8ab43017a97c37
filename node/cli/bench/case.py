"""What is measured, and how it is shared out among worker processes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

CATCH_UP_BYTES = 128 * 1024 * 1024
CATCH_UP_RECORDS_MAX = 500_000
DUE_BYTES = 8
"""Room in a value for the time it was due; see `loads`."""


class Kind(StrEnum):
    ONE_IN_FLIGHT = "one-in-flight"
    """Each producer waits for the acknowledgement before it appends again."""
    PIPELINED = "pipelined"
    """Producers send as fast as they may, many records under way."""
    FIXED_RATE = "fixed-rate"
    """Open loop: appends are due at fixed times, and latency counts from then."""
    CATCH_UP = "catch-up"
    """Readers read a stream from its beginning to its end."""
    TAIL = "tail"
    """Readers follow streams that are appended to at a fixed rate, each record timed from when it
    was due to when a reader had it."""


@dataclass(frozen=True, slots=True)
class Case:
    """Raises ValueError, naming the setting."""

    kind: Kind
    value_bytes: int = 1000
    producers: int = 1
    readers: int = 1
    streams: int = 1
    processes: int = 1
    """Worker processes for what is limited by the client: producers, or the readers of a case."""
    seconds: float = 5.0
    warm_up_s: float = 1.0
    rate: float = 0.0
    """Records per second of all producers together, for fixed-rate and tail."""
    records: int = 0
    """Records of each stream that is read back, for catch-up; 0: 128 MiB, 500,000 at most."""
    linger_ms: float = 5.0
    batch_bytes: int = 131_072
    in_flight: int = 5

    def __post_init__(self) -> None:
        least = DUE_BYTES if self.kind is Kind.TAIL else 1
        if self.value_bytes < least:
            raise ValueError(f"value_bytes: at least {least}")
        for name in ("producers", "readers", "streams", "processes", "batch_bytes", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1")
        if self.seconds <= 0 or self.warm_up_s < 0:
            raise ValueError("seconds: more than 0")
        if self.kind in (Kind.FIXED_RATE, Kind.TAIL) and self.rate <= 0:
            raise ValueError("rate: more than 0")
        clients = self.readers if self.kind is Kind.CATCH_UP else self.producers
        if self.streams > clients and self.kind is not Kind.TAIL:
            raise ValueError("streams: at most as many as there are clients")

    @property
    def paced_per_stream(self) -> int:
        """Appends of each stream in a tail or at a fixed rate, warm-up included."""
        return max(1, round(self.rate * (self.warm_up_s + self.seconds) / self.streams))

    @property
    def name(self) -> str:
        """One line for a table."""
        parts = [f"{self.kind.value} {self.value_bytes} B"]
        if self.rate and self.kind in (Kind.FIXED_RATE, Kind.TAIL):
            parts.append(f"{self.rate:g}/s")
        if self.kind in (Kind.CATCH_UP, Kind.TAIL):
            parts.append(_counted(self.readers, "reader"))
        if self.producers > 1 and self.kind is not Kind.CATCH_UP:
            parts.append(_counted(self.producers, "producer"))
        if self.streams > 1:
            parts.append(_counted(self.streams, "stream"))
        return ", ".join(parts)

    @property
    def records_kept(self) -> int:
        """Records of each stream that a catch-up reads."""
        by_size = min(CATCH_UP_RECORDS_MAX, CATCH_UP_BYTES // self.value_bytes)
        return self.records or max(1, by_size // self.streams)


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker process does."""

    kind: Kind
    role: str
    """`produce` or `read`: a tail needs both."""
    servers: list[str]
    streams: list[str]
    """A producer's or reader's stream; one entry for each of them."""
    case: Case
    rate: float = 0.0
    """This worker's share, for all its producers together."""
    records: int = 0
    """What each reader waits for, or each producer of a fill sends; 0: until the time is up."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, shape: dict[str, Any]) -> Self:
        case = Case(**{**shape["case"], "kind": Kind(shape["case"]["kind"])})
        return cls(**{**shape, "kind": Kind(shape["kind"]), "case": case})


def fill_of(case: Case, servers: Sequence[str], streams: Sequence[str]) -> Job | None:
    """Return the job that prepares what a catch-up reads."""
    if case.kind is not Kind.CATCH_UP:
        return None
    return Job(Kind.PIPELINED, "produce", [*servers], [*streams], case, records=case.records_kept)


def jobs_of(case: Case, servers: Sequence[str], streams: Sequence[str]) -> list[Job]:
    """Share the case out, producer i and reader i on stream i modulo their number."""
    if case.kind is Kind.CATCH_UP:
        return _jobs(case, "read", case.readers, servers, streams, case.records_kept)
    if case.kind is Kind.TAIL:
        # The clock of the load must not wait for the readers: it has a process of its own.
        pace = Job(case.kind, "produce", [*servers], [*streams], case, case.rate)
        return [pace, *_jobs(case, "read", case.readers, servers, streams, case.paced_per_stream)]
    return _jobs(case, "produce", case.producers, servers, streams)


def _jobs(
    case: Case,
    role: str,
    count: int,
    servers: Sequence[str],
    streams: Sequence[str],
    records: int = 0,
) -> list[Job]:
    mine = [streams[i % len(streams)] for i in range(count)]
    jobs = []
    for process in range(min(case.processes, count)):
        share = mine[process :: case.processes]
        rate = case.rate * len(share) / count
        # Each worker begins at another node: clients spread over the cluster.
        first = process % len(servers)
        rotated = [*servers[first:], *servers[:first]]
        jobs.append(Job(case.kind, role, rotated, share, case, rate, records))
    return jobs


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
