"""Everything the replication layer raises.

    ReplicationError
    ├── Refused                  certainly not written, now or later
    │   ├── NotLeader            ask the leader it names
    │   ├── NoLeader             nobody leads at the moment
    │   ├── NotReady             this node has not caught up since it started
    │   │   └── Unreadable       the records' bytes are damaged, and no other node helped so far
    │   ├── ShuttingDown         this node is stopping
    │   ├── Throttled            too much is waiting already
    │   ├── DiskFull             too little room on the disks
    │   ├── MembershipConflict   another change of members is under way, or this one cannot be
    │   ├── UnknownMember        no node of that id is a member
    │   ├── UnknownStream        ┐
    │   ├── UnknownGroup         │
    │   ├── UnknownIndex         │
    │   ├── UnknownKey           │
    │   ├── TooManyIndexes       │
    │   ├── BadSearch            │
    │   ├── StreamExists         │
    │   ├── InvalidRequest       │
    │   ├── StreamImmutable      │
    │   ├── ConditionFailed      │
    │   ├── LeaseLost            │
    │   ├── IdempotencyConflict  │ decided in apply or by a read:
    │   ├── UnknownIdempotencyKey│ every replica answers alike
    │   ├── OutOfOrderSequence   │
    │   ├── ProducerFenced       │
    │   ├── ProducerExpired      │
    │   ├── RecordTooLarge       │
    │   ├── BatchTooLarge        │
    │   ├── OffsetTrimmed        │
    │   └── BeyondHighWatermark  ┘
    └── OutcomeUnknown           maybe written

`code` is the stable code of the HTTP API, `facts` what belongs to the case (its keys become fields
of the answer).
"""

from __future__ import annotations

from typing import ClassVar


class ReplicationError(Exception):
    """Base of everything the replication layer raises."""

    code: ClassVar[str]
    retriable: ClassVar[bool] = False
    """The same request may succeed later, without a change."""

    def __init__(self, detail: str, **facts: int | str | None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Refused(ReplicationError):
    """Certainly not written: the request had no effect and never will."""


class OutcomeUnknown(ReplicationError):
    """The proposal may be committed or not; only its idempotency key or sequence can tell."""

    code = "outcome_unknown"
    retriable = True


class NotLeader(Refused):
    """This node does not lead; `leader` is the id of the node that does."""

    code = "no_leader"
    retriable = True

    def __init__(self, leader: str) -> None:
        super().__init__(f"the leader is {leader}", leader=leader)
        self.leader = leader


class NoLeader(Refused):
    code = "no_leader"
    retriable = True


class NotReady(Refused):
    code = "not_ready"
    retriable = True


class Unreadable(NotReady):
    """Records whose bytes are damaged here, and of which no other node had a good copy yet; its
    detail says what became of each one's.
    """


class NotCaughtUp(Refused):
    """The index asked for was not applied here within the time given."""

    code = "not_caught_up"
    retriable = True


class TooStale(Refused):
    """This node heard from the leader longer ago than the reader accepts."""

    code = "too_stale"
    retriable = True


class ShuttingDown(Refused):
    code = "shutting_down"
    retriable = True


class Throttled(Refused):
    code = "throttled"
    retriable = True


class DiskFull(Refused):
    """Too little room on a majority, or on the leader; clears by itself. `free_bytes` says more."""

    code = "disk_full"
    retriable = True


class MembershipConflict(Refused):
    """Not now, or not like this: `detail` says what is in the way."""

    code = "membership_conflict"


class UnknownMember(Refused):
    code = "not_found"


class UnknownStream(Refused):
    code = "unknown_stream"


def unknown_stream(name: str) -> UnknownStream:
    return UnknownStream(f"there is no stream {name}", stream=name)


class UnknownGroup(Refused):
    code = "unknown_group"


class UnknownIndex(Refused):
    code = "unknown_index"


class UnknownKey(Refused):
    """No record has the key, or the newest one that has it is a tombstone."""

    code = "unknown_key"


class TooManyIndexes(Refused):
    code = "invalid_request"


class BadSearch(Refused):
    """What is asked for makes no sense of this index; `field` says which part."""

    code = "invalid_request"


class StreamExists(Refused):
    code = "stream_exists"


class InvalidRequest(Refused):
    """`field` is not what this stream takes."""

    code = "invalid_request"


class StreamImmutable(Refused):
    """The stream's records and what concerns keeping them stay as they are, for ever."""

    code = "forbidden"


class ConditionFailed(Refused):
    """`actual` is the offset the stream's next record will get; of a commit, the one committed."""

    code = "condition_failed"


class LeaseLost(Refused):
    """Somebody else holds the lease, or held it since; `member` and `expires_in_ms` say who."""

    code = "lease_lost"


class IdempotencyConflict(Refused):
    code = "idempotency_conflict"


class UnknownIdempotencyKey(Refused):
    code = "unknown_idempotency_key"


class OutOfOrderSequence(Refused):
    """`expected` is the sequence the producer has to send next."""

    code = "out_of_order_sequence"


class ProducerFenced(Refused):
    code = "producer_fenced"


class ProducerExpired(Refused):
    code = "producer_expired"


class RecordTooLarge(Refused):
    code = "record_too_large"


class BatchTooLarge(Refused):
    code = "batch_too_large"


class OffsetTrimmed(Refused):
    code = "offset_trimmed"


class BeyondHighWatermark(Refused):
    code = "beyond_high_watermark"
