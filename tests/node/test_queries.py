from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from msgspec import UNSET

from cute_logger.node.http.problems import Problem
from cute_logger.node.http.queries import Query, ReadQuery, WriteQuery, read_query


def parse(query: str, wanted: type[Query] = ReadQuery) -> Any:
    return read_query(make_mocked_request("GET", f"/?{query}"), wanted)


def test_the_defaults_are_the_contracts() -> None:
    query = parse("")
    assert (query.limit, query.max_bytes, query.wait_ms) == (500, 1_048_576, 0)
    assert (query.order, query.consistency) == ("asc", "local")
    assert query.offset is query.timestamp is query.key is query.until is query.after is UNSET
    assert parse("", WriteQuery).timeout_ms == 10_000


def test_integers_become_integers_and_text_stays_text() -> None:
    query = parse("offset=-10&key=5&limit=007")
    assert (query.offset, query.key, query.limit) == (-10, "5", 7)


def test_a_key_may_be_empty_or_any_text() -> None:
    assert parse("key=").key == ""
    assert parse("key=gr%C3%BCn%20%26").key == "grün &"


def test_redirect_is_known_to_every_request() -> None:
    assert parse("redirect=1", Query).redirect == 1


@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("limit=0", "limit", "Expected int >= 1; came 0"),
        ("limit=x", "limit", "Expected int, got str; came 'x'"),
        ("limit=", "limit", "came ''"),
        ("limit=1_0", "limit", "came '1_0'"),
        ("limit=%D9%A1", "limit", "came"),
        ("offset=0x10", "offset", "came '0x10'"),
        ("order=up", "order", "wanted one of asc, desc; came 'up'"),
        ("redirect=yes", "redirect", "came 'yes'"),
        ("limit=1&limit=1", "limit", "there twice"),
        ("Limit=1", "Limit", "'limit'"),
    ],
)
def test_a_refusal_names_the_parameter_what_came_and_what_is_wanted(query, field, detail) -> None:
    with pytest.raises(Problem) as refused:
        parse(query)
    assert refused.value.code == "invalid_request"
    assert refused.value.facts["field"] == field
    assert detail in refused.value.detail


def test_an_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(Problem) as refused:
        parse("consistancy=local")
    assert refused.value.facts["nearest"] == "consistency"
