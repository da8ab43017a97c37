"""When to try again, and what a failure means after earlier attempts: pure, never sleeps.

The rule that keeps the promise "refused means certainly not written": once one attempt may have
reached the leader, a later refusal says only that *this* attempt had no effect. The earlier one
may sit in a socket buffer and be carried out afterwards, so the outcome is unknown unless the
refusal holds for every attempt alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .errors import (
    BatchTooLarge,
    ConditionFailed,
    CuteError,
    IdempotencyConflict,
    InvalidRequest,
    OutcomeUnknown,
    RecordTooLarge,
    Refused,
    Throttled,
    Unavailable,
)

_CONCLUSIVE = (BatchTooLarge, IdempotencyConflict, InvalidRequest, RecordTooLarge)
"""Refusals that the same bytes meet every time they are judged."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double, with jitter so that clients do not return in step."""

    first_s: float = 0.05
    longest_s: float = 1.0

    def pause_s(self, rounds: int, *, draw: Callable[[], float] = random.random) -> float:
        """Return the pause after `rounds` rounds over all nodes: half of it fixed, half drawn."""
        longest = min(self.longest_s, self.first_s * 2.0 ** min(rounds, 16))
        return longest * (0.5 + 0.5 * draw())


@dataclass(slots=True)
class Attempts:
    """The attempts of one call, up to `deadline` (of the monotonic clock, seconds)."""

    deadline: float
    rounds: int = 0
    unanswered: bool = False
    """An attempt may have been carried out though no answer told so."""

    def remaining_s(self, now: float) -> float:
        return max(0.0, self.deadline - now)


def is_worth_repeating(failure: CuteError) -> bool:
    """Tell whether another attempt, perhaps at another node, may end otherwise."""
    return isinstance(failure, Unavailable | Throttled | OutcomeUnknown)


def pause_s(failure: CuteError, rounds: int, backoff: Backoff, *, all_tried: bool) -> float:
    """Return how long to wait before the next attempt.

    `Throttled` comes from the leader whichever node is asked: its Retry-After counts at once. A
    503 comes from one node, so the others are asked first; its Retry-After is not waited for,
    because it counts whole seconds and an election takes less than one.
    """
    if isinstance(failure, Throttled):
        return max(failure.retry_after_s or 0.0, backoff.pause_s(rounds))
    return backoff.pause_s(rounds) if all_tried else 0.0


def settled(refusal: Refused, *, unanswered: bool, if_offset: int | None = None) -> CuteError:
    """Return what `refusal` means for an append of which an attempt may be `unanswered`."""
    if not unanswered or isinstance(refusal, _CONCLUSIVE):
        return refusal
    if isinstance(refusal, ConditionFailed) and refusal.actual > (if_offset or 0):
        # Next offsets only grow: a condition that lies behind can never come true again.
        return refusal
    return unknown(refusal)


def unknown(failure: CuteError) -> OutcomeUnknown:
    """Return the failure of an append that may have been carried out; `failure` came last."""
    if isinstance(failure, OutcomeUnknown):
        return failure
    return OutcomeUnknown(
        f"an attempt was not answered and may have been carried out; then: {failure.detail}",
        facts={**failure.facts, "last_code": failure.code},
        request_id=failure.request_id,
    )
