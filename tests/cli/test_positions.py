from __future__ import annotations

import click
import pytest

from cute_logger.node.cli.positions import Position, PositionType


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", Position(offset=0)),
        ("-10", Position(offset=-10)),
        ("2026-01-31T12:00:00Z", Position(timestamp=1769860800000)),
        ("2026-01-31T13:00:00.250+01:00", Position(timestamp=1769860800250)),
        ("2026-01-31", Position(timestamp=1769817600000)),
    ],
)
def test_an_integer_is_an_offset_and_a_date_a_time(text: str, wanted: Position) -> None:
    assert PositionType().convert(text, None, None) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "1.5", "0x10"])
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter):
        PositionType().convert(text, None, None)
