from __future__ import annotations

import json

import pytest

from cute_logger.node.http.problems import TABLE, Problem, problem_of, problem_response
from cute_logger.replication import errors

CONTRACT = {
    400: {"invalid_request"},
    401: {"unauthenticated"},
    403: {"forbidden"},
    404: {
        "unknown_stream",
        "unknown_key",
        "unknown_index",
        "unknown_group",
        "unknown_idempotency_key",
    },
    409: {
        "stream_exists",
        "idempotency_conflict",
        "out_of_order_sequence",
        "producer_fenced",
        "producer_expired",
        "lease_lost",
        "membership_conflict",
    },
    410: {"offset_trimmed"},
    412: {"condition_failed"},
    413: {"record_too_large", "batch_too_large"},
    416: {"beyond_high_watermark"},
    429: {"throttled"},
    503: {"no_leader", "not_ready", "not_caught_up", "too_stale", "shutting_down"},
    504: {"outcome_unknown"},
    507: {"disk_full"},
}
CASES = [(status, code) for status, codes in CONTRACT.items() for code in sorted(codes)]


@pytest.mark.parametrize(("status", "code"), CASES)
def test_the_contracts_codes_have_the_contracts_status(status, code) -> None:
    assert TABLE[code].status == status


def test_beyond_the_contract_there_are_three_codes() -> None:
    extra = TABLE.keys() - {code for _, code in CASES}
    assert extra == {"not_found", "method_not_allowed", "not_implemented"}


@pytest.mark.parametrize("code", sorted(TABLE))
def test_a_problem_has_all_members_and_only_an_unknown_outcome_may_be_written(code) -> None:
    response = problem_response(Problem(code, "why", actual=7), "r-1")
    body = json.loads(bytes(response.body))

    assert response.content_type == "application/problem+json"
    assert response.status == body["status"] == TABLE[code].status
    assert body["title"] == TABLE[code].title
    assert body["detail"] == "why"
    assert body["code"] == code
    assert body["actual"] == 7
    assert body["request_id"] == "r-1"
    assert body["side_effect"] == ("maybe" if code == "outcome_unknown" else "none")
    assert ("Retry-After" in response.headers) is (response.status in (429, 503))


def test_a_fact_never_hides_a_member() -> None:
    response = problem_response(Problem("no_leader", "why", status="odd"), "r-1")
    assert json.loads(bytes(response.body))["status"] == 503


def all_of(kind: type[errors.ReplicationError]) -> list[type[errors.ReplicationError]]:
    below = [one for child in kind.__subclasses__() for one in all_of(child)]
    return below + ([kind] if hasattr(kind, "code") else [])


@pytest.mark.parametrize("kind", all_of(errors.ReplicationError))
def test_every_replication_error_has_a_row_that_agrees_with_it(kind) -> None:
    row = TABLE[kind.code]
    assert row.retryable is kind.retriable
    assert (kind.code == "outcome_unknown") is not issubclass(kind, errors.Refused)


def test_a_replication_error_keeps_its_facts() -> None:
    problem = problem_of(errors.ConditionFailed("no", actual=3), writes=True)
    assert (problem.code, problem.detail, problem.facts) == (
        "condition_failed",
        "no",
        {"actual": 3},
    )


@pytest.mark.parametrize(("writes", "code"), [(True, "outcome_unknown"), (False, "not_ready")])
def test_what_nobody_expected_is_unknown_for_writes_and_refused_for_reads(writes, code) -> None:
    assert problem_of(ZeroDivisionError("secret"), writes=writes).code == code
    assert "secret" not in problem_of(ZeroDivisionError("secret"), writes=writes).detail
