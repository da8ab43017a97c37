from __future__ import annotations

import inspect

import pytest

from cute_logger.client import errors


def test_every_code_of_the_api_that_means_refused_has_its_class() -> None:
    codes = """invalid_request unauthenticated forbidden unknown_stream unknown_key unknown_index
        unknown_group unknown_idempotency_key stream_exists idempotency_conflict
        out_of_order_sequence producer_fenced producer_expired lease_lost membership_conflict
        offset_trimmed condition_failed record_too_large batch_too_large beyond_high_watermark
        throttled no_leader not_ready not_caught_up too_stale shutting_down disk_full"""
    assert set(errors.REFUSALS) == set(codes.split())


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = errors.__doc__ or ""
    classes = [
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, Exception) and not name.startswith("_")
    ]
    assert [name for name in classes if name not in drawn] == []


def test_every_failure_is_either_refused_or_unknown() -> None:
    for refusal in errors.REFUSALS.values():
        assert issubclass(refusal, errors.Refused)
        assert not issubclass(refusal, errors.OutcomeUnknown)
    assert not issubclass(errors.OutcomeUnknown, errors.Refused)


@pytest.mark.parametrize("code", ["no_leader", "not_ready", "too_stale", "throttled", "disk_full"])
def test_what_clears_by_itself_is_retryable(code: str) -> None:
    assert errors.REFUSALS[code]("detail").retryable


def test_a_failure_carries_what_the_answer_told() -> None:
    error = errors.ConditionFailed("next is 7", facts={"actual": 7}, request_id="r9")

    assert (error.code, error.detail, error.actual) == ("condition_failed", "next is 7", 7)
    assert (error.request_id, error.retryable, str(error)) == ("r9", False, "next is 7")


def test_a_missing_fact_is_minus_one() -> None:
    assert errors.ConditionFailed("?").actual == -1
