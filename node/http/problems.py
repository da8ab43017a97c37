"""What a client is told when a request fails: RFC 9457 problems with a code of our own.

One table says status, title and whether the same request may succeed later. Every failure is one of
two kinds: *refused* (side effect `none`: certainly never written) or *unknown* (`maybe`).

An exception nobody expected has no row. A request that may write answers `outcome_unknown` then:
its proposal may be on the way, and only its idempotency key can tell. A read had no effect: it
answers `not_ready`, which sends the client to another node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from ...replication.errors import ReplicationError


class Row(NamedTuple):
    status: int
    title: str
    retryable: bool = False


TABLE: Final[Mapping[str, Row]] = {
    "invalid_request": Row(400, "The request is not valid"),
    "unauthenticated": Row(401, "Who asks is not known"),
    "forbidden": Row(403, "This is not allowed"),
    "not_found": Row(404, "There is nothing at this address"),
    "unknown_stream": Row(404, "There is no such stream"),
    "unknown_key": Row(404, "No record has this key"),
    "unknown_index": Row(404, "There is no such index"),
    "unknown_group": Row(404, "There is no such group"),
    "unknown_idempotency_key": Row(404, "This key was not used within the window"),
    "method_not_allowed": Row(405, "This address does not take this method"),
    "stream_exists": Row(409, "The stream exists with another config"),
    "idempotency_conflict": Row(409, "The key was used for other records"),
    "out_of_order_sequence": Row(409, "The sequence is not the next one"),
    "producer_fenced": Row(409, "A newer epoch of this producer exists"),
    "producer_expired": Row(409, "The producer is not known any more"),
    "lease_lost": Row(409, "Somebody else holds the lease"),
    "membership_conflict": Row(409, "Another membership change is under way"),
    "offset_trimmed": Row(410, "Records at this offset were removed"),
    "condition_failed": Row(412, "A condition of the request does not hold"),
    "record_too_large": Row(413, "A record is too large"),
    "batch_too_large": Row(413, "The batch is too large"),
    "beyond_high_watermark": Row(416, "Nothing is committed at this offset yet"),
    "throttled": Row(429, "Too much is under way", retryable=True),
    "not_implemented": Row(501, "This is not built yet"),
    "no_leader": Row(503, "No leader took the request", retryable=True),
    "not_ready": Row(503, "This node cannot answer now", retryable=True),
    "not_caught_up": Row(503, "This node has not applied that index yet", retryable=True),
    "too_stale": Row(503, "This node is further behind than asked for", retryable=True),
    "shutting_down": Row(503, "This node is stopping", retryable=True),
    "outcome_unknown": Row(504, "It may have been written or not", retryable=True),
    "disk_full": Row(507, "The disk is full", retryable=True),
}

RETRY_AFTER_S: Final = 1
"""An election takes about as long; HTTP counts whole seconds."""
CONTENT_TYPE: Final = "application/problem+json"


DETAIL_CHARS_MAX: Final = 500
"""What came is quoted in places, and may be long."""


class Problem(Exception):
    """A failure on its way to the client; `facts` become fields of the answer."""

    def __init__(self, code: str, detail: str, **facts: object) -> None:
        if len(detail) > DETAIL_CHARS_MAX:
            detail = detail[: DETAIL_CHARS_MAX - 1] + "…"
        super().__init__(detail)
        assert code in TABLE, code
        self.code = code
        self.detail = detail
        self.facts = facts
        self.headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        return TABLE[self.code].status


def invalid(field: str, detail: str, **facts: object) -> Problem:
    """Return the refusal of one `field`, named as the client wrote it."""
    return Problem("invalid_request", f"{field}: {detail}", field=field, **facts)


def problem_of(error: Exception, *, writes: bool) -> Problem:
    """Return what the client is told about `error`."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ReplicationError):
        return Problem(error.code, error.detail, **error.facts)
    if writes:
        return Problem("outcome_unknown", "this node failed while it handled the request")
    return Problem(
        "not_ready", "this node failed while it handled the request; another one may answer"
    )


def describe(problem: Problem, request_id: str) -> dict[str, object]:
    row = TABLE[problem.code]
    return problem.facts | {
        "type": f"urn:cute-logger:problem:{problem.code}",
        "title": row.title,
        "status": row.status,
        "detail": problem.detail,
        "code": problem.code,
        "retryable": row.retryable,
        "side_effect": "maybe" if problem.code == "outcome_unknown" else "none",
        "request_id": request_id,
    }


def problem_response(problem: Problem, request_id: str) -> web.Response:
    row = TABLE[problem.code]
    headers = dict(problem.headers)
    if row.status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return web.Response(
        body=msgspec.json.encode(describe(problem, request_id)),
        status=row.status,
        headers=headers,
        content_type=CONTENT_TYPE,
    )
