from __future__ import annotations

import pytest

from cute_logger.client.endpoints import Endpoints

A, B, C = "http://a:1", "http://b:1", "http://c:1"


def test_nodes_come_in_the_order_given() -> None:
    assert Endpoints([A, B + "/", C]).candidates(0, leader_first=False) == [A, B, C]


def test_the_node_that_answered_last_is_asked_first() -> None:
    endpoints = Endpoints([A, B, C])
    endpoints.answered(B, None)
    assert endpoints.candidates(0, leader_first=False) == [B, A, C]


def test_writes_go_to_the_leader_once_its_address_is_known() -> None:
    endpoints = Endpoints([A, B])
    endpoints.learn([("n1", A), ("n3", C)], leader="n3")
    assert endpoints.candidates(0, leader_first=True)[0] == C
    assert endpoints.candidates(0, leader_first=False) == [A, B, C]


def test_a_new_leader_is_taken_from_any_answer() -> None:
    endpoints = Endpoints([A, B])
    endpoints.learn([("n1", A), ("n2", B)], leader="n1")
    endpoints.answered(A, leader="n2")
    assert endpoints.candidates(0, leader_first=True)[0] == B


def test_a_failing_node_is_set_aside_and_returns() -> None:
    endpoints = Endpoints([A, B])
    endpoints.failed(A, now=10.0)
    assert endpoints.candidates(10.5, leader_first=False) == [B, A]
    assert endpoints.candidates(11.5, leader_first=False) == [A, B]


def test_further_failures_set_it_aside_for_longer() -> None:
    endpoints = Endpoints([A, B])
    endpoints.failed(A, now=10.0)
    endpoints.failed(A, now=11.0)
    assert endpoints.candidates(12.5, leader_first=False) == [B, A]
    endpoints.answered(A, None)
    assert endpoints.candidates(12.5, leader_first=False) == [A, B]


def test_what_fails_together_counts_once() -> None:
    endpoints = Endpoints([A, B])
    for _ in range(64):
        endpoints.failed(A, now=10.0)
    assert endpoints.candidates(11.5, leader_first=False) == [A, B]


def test_a_term_is_known_when_its_leader_is() -> None:
    endpoints = Endpoints([A, B])
    endpoints.answered(A, None, term=4)
    assert endpoints.term == 0
    endpoints.answered(A, "n1", term=4)
    endpoints.answered(B, "n2", term=3)
    assert endpoints.term == 4
    endpoints.learn([("n1", A)], leader="n1", term=5)
    assert endpoints.term == 5


def test_a_dead_leader_is_not_asked_first() -> None:
    endpoints = Endpoints([A, B])
    endpoints.learn([("n1", A)], leader="n1")
    endpoints.failed(A, now=1.0)
    assert endpoints.candidates(1.1, leader_first=True) == [B, A]


def test_given_urls_stay_and_learnt_ones_go_with_the_members() -> None:
    endpoints = Endpoints([A])
    endpoints.learn([("n2", B), ("n3", None)], leader=None)
    assert endpoints.urls == [A, B]
    endpoints.learn([("n3", C)], leader=None)
    assert endpoints.urls == [A, C]


def test_members_are_asked_for_when_an_unknown_leader_is_named_but_not_all_the_time() -> None:
    endpoints = Endpoints([A])
    assert not endpoints.is_learning_due(100.0)
    endpoints.answered(A, "n2")
    assert endpoints.is_learning_due(100.0)
    assert not endpoints.is_learning_due(101.0)
    endpoints.learn([("n2", B)], "n2")
    assert not endpoints.is_learning_due(200.0)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8101", "ftp://a", "http://", "http://a:x", "http://a?b=c"]
)
def test_what_is_no_base_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        Endpoints([url])


def test_one_string_is_no_list() -> None:
    with pytest.raises(TypeError):
        Endpoints(A)
    with pytest.raises(ValueError, match="at least one"):
        Endpoints([])
