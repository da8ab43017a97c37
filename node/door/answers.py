"""The frames that a node sends."""

from __future__ import annotations

from ...replication.types import Receipt
from ..http.context import Context
from ..http.pages import Page
from ..http.problems import RETRY_AFTER_S, Problem, describe
from . import frames


def hello(context: Context, frame_bytes_max: int, requests_max: int) -> bytes:
    leader = context.replica.leader_id if context.replica is not None else None
    greeting = frames.Hello(
        frames.VERSION, context.config.id, leader, frame_bytes_max, requests_max
    )
    return frames.frame(frames.HELLO, 0, greeting)


def receipt_frame(context: Context, request_id: int, receipt: Receipt) -> bytes:
    body = frames.ReceiptBody(
        receipt.stream,
        receipt.first_offset,
        receipt.last_offset,
        receipt.count,
        receipt.timestamp,
        receipt.term,
        receipt.index,
        receipt.duplicate,
    )
    answer = frames.ReceiptAnswer(body, *_seen(context))
    return frames.frame(frames.RECEIPT, request_id, answer)


def problem_frame(
    context: Context, request_id: int, problem: Problem, token: str | None = None
) -> bytes:
    """`request_id` 0 is for what concerns the connection; `token` is the problem's own."""
    described = describe(problem, token or context.request_id(None))
    retry_after_s = RETRY_AFTER_S if problem.status in (429, 503) else None
    answer = frames.ProblemAnswer(described, retry_after_s, *_seen(context))
    return frames.frame(frames.PROBLEM, request_id, answer)


def page_payload(context: Context, page: Page, start: int) -> bytes:
    """Return a PAGE's payload for who has everything before `start`."""
    result = page.result
    head = frames.PageHead(
        start,
        page.next_offset,
        result.log_start_offset,
        result.high_watermark,
        result.lag_ms,
        *_seen(context),
    )
    return frames.page_of(head, (batch.data for batch in page.batches))


def _seen(context: Context) -> tuple[str, str | None, int, int]:
    """Who answers, and how far it is: node, leader, term, applied index."""
    replica = context.replica
    if replica is None:
        return context.config.id, None, 0, 0
    return context.config.id, replica.leader_id, replica.term, replica.applied_index
