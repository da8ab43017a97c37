from __future__ import annotations

import pytest

from cute_logger.client.errors import (
    ConditionFailed,
    NoLeader,
    OutcomeUnknown,
    ProducerExpired,
    RecordTooLarge,
    Refused,
    Throttled,
    UnknownStream,
)
from cute_logger.client.retry import Attempts, Backoff, is_worth_repeating, pause_s, settled


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.1, longest_s=1.0)
    assert [backoff.pause_s(n, draw=lambda: 1.0) for n in range(6)] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.0,
        1.0,
    ]


def test_jitter_takes_away_half_at_most() -> None:
    assert Backoff(first_s=0.1).pause_s(0, draw=lambda: 0.0) == pytest.approx(0.05)


def test_a_huge_number_of_rounds_does_not_overflow() -> None:
    assert Backoff(longest_s=1.0).pause_s(100_000, draw=lambda: 1.0) == 1.0


def test_the_time_left_never_falls_below_zero() -> None:
    assert Attempts(deadline=5.0).remaining_s(4.0) == 1.0
    assert Attempts(deadline=5.0).remaining_s(6.0) == 0.0


def test_other_nodes_are_asked_at_once_after_a_503() -> None:
    assert pause_s(NoLeader("?", retry_after_s=1.0), 3, Backoff(), all_tried=False) == 0.0
    assert 0 < pause_s(NoLeader("?", retry_after_s=9.0), 0, Backoff(), all_tried=True) <= 0.05


def test_throttling_is_heeded_at_once() -> None:
    throttled = Throttled("?", retry_after_s=2.0)
    assert pause_s(throttled, 0, Backoff(), all_tried=False) == 2.0


def test_only_what_may_end_otherwise_is_repeated() -> None:
    assert is_worth_repeating(NoLeader("?"))
    assert is_worth_repeating(OutcomeUnknown("?"))
    assert not is_worth_repeating(UnknownStream("?", retryable=True))


def test_a_refusal_of_the_only_attempt_is_final() -> None:
    refusal = UnknownStream("?")
    assert settled(refusal, unanswered=False) is refusal


@pytest.mark.parametrize("kind", [UnknownStream, ProducerExpired, NoLeader])
def test_a_refusal_after_an_unanswered_attempt_leaves_the_outcome_open(kind: type[Refused]) -> None:
    assert isinstance(settled(kind("?"), unanswered=True), OutcomeUnknown)


def test_a_refusal_that_meets_every_attempt_settles_the_unanswered_one() -> None:
    refusal = RecordTooLarge("?")
    assert settled(refusal, unanswered=True) is refusal


def test_a_condition_settles_an_unanswered_attempt_once_it_lies_behind() -> None:
    behind = ConditionFailed("?", facts={"actual": 8})
    ahead = ConditionFailed("?", facts={"actual": 3})

    assert settled(behind, unanswered=True, if_offset=7) is behind
    assert isinstance(settled(ahead, unanswered=True, if_offset=7), OutcomeUnknown)
