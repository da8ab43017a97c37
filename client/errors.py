"""Everything the client raises, but for `TypeError` and `ValueError` on wrong arguments.

    CuteError
    ├── Refused                    certainly not written, now or later
    │   ├── InvalidRequest         400: which field, what came, what is wanted
    │   ├── Unauthenticated        401
    │   ├── Forbidden              403
    │   ├── UnknownStream          404
    │   ├── UnknownKey             404
    │   ├── UnknownIndex           404
    │   ├── UnknownGroup           404
    │   ├── UnknownIdempotencyKey  404: `window_start`
    │   ├── StreamExists           409: with another configuration
    │   ├── IdempotencyConflict    409: the key was used for other records
    │   ├── OutOfOrderSequence     409: `expected`
    │   ├── ProducerFenced         409
    │   ├── ProducerExpired        409
    │   ├── LeaseLost              409
    │   ├── MembershipConflict     409
    │   ├── OffsetTrimmed          410: `log_start_offset`, `high_watermark`
    │   │   └── Gap                raised by a tail: records between `start` and `end` are gone
    │   ├── ConditionFailed        412: `actual`
    │   ├── RecordTooLarge         413: `limit`
    │   ├── BatchTooLarge          413: `limit`
    │   ├── BeyondHighWatermark    416: `high_watermark`
    │   ├── Unavailable            503: try again, here or at another node
    │   │   ├── NoLeader
    │   │   ├── NotReady
    │   │   ├── NotCaughtUp
    │   │   ├── TooStale
    │   │   └── ShuttingDown
    │   ├── Throttled              429: too much is waiting already
    │   ├── DiskFull               507: `free_bytes`
    │   └── ClusterUnreachable     no node could be reached, so nothing was sent
    └── OutcomeUnknown             maybe written: nobody answered in time
        └── MixedOutcome           of one `send_many`: some are in and some are not, see `parts`

`code` is the stable code of the HTTP API, `facts` holds the further members of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class CuteError(Exception):
    """Base of everything the client raises."""

    code: str = "error"
    retryable: bool = False
    """The same request may succeed later, without a change."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        facts: Mapping[str, object] | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = type(self).code if code is None else code
        self.facts = dict(facts or {})
        self.request_id = request_id
        self.retryable = type(self).retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        """Seconds the node asked to be left alone; None if it did not ask."""

    def _number(self, name: str) -> int:
        """Return the fact `name`; -1 when the answer lacks it."""
        value = self.facts.get(name)
        return value if isinstance(value, int) else -1


class OutcomeUnknown(CuteError):
    """Maybe written: only the same idempotency key or a look at the stream can tell."""

    code = "outcome_unknown"
    retryable = True


class MixedOutcome(OutcomeUnknown):
    """The values of one `send_many` travelled in several batches that fared differently.

    To send all again would write some of them twice.
    """

    retryable = False

    def __init__(self, parts: Sequence[tuple[int, range | CuteError]]) -> None:
        certain = sum(count for count, outcome in parts if isinstance(outcome, range))
        failure = next(outcome for _, outcome in parts if isinstance(outcome, CuteError))
        total = sum(count for count, _ in parts)
        super().__init__(f"{certain} of {total} records are certainly in, then: {failure}")
        self.parts = list(parts)
        """How many values, and their offsets or what went wrong, in the order of the values."""


class Refused(CuteError):
    """Certainly not written: the request had no effect and never will."""

    code = "refused"


class InvalidRequest(Refused):
    code = "invalid_request"


class Unauthenticated(Refused):
    code = "unauthenticated"


class Forbidden(Refused):
    code = "forbidden"


class UnknownStream(Refused):
    code = "unknown_stream"


class UnknownKey(Refused):
    code = "unknown_key"


class UnknownIndex(Refused):
    code = "unknown_index"


class UnknownGroup(Refused):
    code = "unknown_group"


class UnknownIdempotencyKey(Refused):
    code = "unknown_idempotency_key"

    @property
    def window_start(self) -> int:
        """Keys used before this time, ms since the epoch, are forgotten."""
        return self._number("window_start")


class StreamExists(Refused):
    code = "stream_exists"


class IdempotencyConflict(Refused):
    code = "idempotency_conflict"


class OutOfOrderSequence(Refused):
    code = "out_of_order_sequence"

    @property
    def expected(self) -> int:
        """The sequence the producer has to send next; -1 when the answer lacks it."""
        return self._number("expected")


class ProducerFenced(Refused):
    code = "producer_fenced"


class ProducerExpired(Refused):
    code = "producer_expired"


class LeaseLost(Refused):
    code = "lease_lost"


class MembershipConflict(Refused):
    code = "membership_conflict"


class OffsetTrimmed(Refused):
    """The offset asked for lies below the log start offset."""

    code = "offset_trimmed"

    @property
    def log_start_offset(self) -> int:
        return self._number("log_start_offset")

    @property
    def high_watermark(self) -> int:
        return self._number("high_watermark")


class Gap(OffsetTrimmed):
    """The records in `[start, end)` were removed before the tail reached them."""

    def __init__(self, start: int, end: int, *, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(f"the records from {start} up to {end} were removed", facts=facts)
        self.start = start
        self.end = end


class ConditionFailed(Refused):
    code = "condition_failed"

    @property
    def actual(self) -> int:
        """The offset the stream's next record will get."""
        return self._number("actual")


class _TooLarge(Refused):
    @property
    def limit(self) -> int:
        """Bytes allowed; -1 when the answer lacks it."""
        return self._number("limit" if "limit" in self.facts else "limit_bytes")


class RecordTooLarge(_TooLarge):
    code = "record_too_large"


class BatchTooLarge(_TooLarge):
    code = "batch_too_large"


class BeyondHighWatermark(Refused):
    code = "beyond_high_watermark"

    @property
    def high_watermark(self) -> int:
        return self._number("high_watermark")


class Unavailable(Refused):
    """The cluster or this node cannot serve the request at the moment."""

    code = "unavailable"
    retryable = True


class NoLeader(Unavailable):
    code = "no_leader"


class NotReady(Unavailable):
    code = "not_ready"


class NotCaughtUp(Unavailable):
    code = "not_caught_up"


class TooStale(Unavailable):
    code = "too_stale"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class Throttled(Refused):
    code = "throttled"
    retryable = True


class DiskFull(Refused):
    code = "disk_full"
    retryable = True

    @property
    def free_bytes(self) -> int:
        return self._number("free_bytes")


class ClusterUnreachable(Refused):
    """No node could be reached; `facts["tried"]` tells why, node by node."""

    code = "cluster_unreachable"
    retryable = True


REFUSALS: Mapping[str, type[Refused]] = {
    refusal.code: refusal
    for refusal in (
        InvalidRequest,
        Unauthenticated,
        Forbidden,
        UnknownStream,
        UnknownKey,
        UnknownIndex,
        UnknownGroup,
        UnknownIdempotencyKey,
        StreamExists,
        IdempotencyConflict,
        OutOfOrderSequence,
        ProducerFenced,
        ProducerExpired,
        LeaseLost,
        MembershipConflict,
        OffsetTrimmed,
        ConditionFailed,
        RecordTooLarge,
        BatchTooLarge,
        BeyondHighWatermark,
        NoLeader,
        NotReady,
        NotCaughtUp,
        TooStale,
        ShuttingDown,
        Throttled,
        DiskFull,
    )
}
"""The class of each code that a node may answer with `side_effect: none`."""
