"""Where to read from and up to, as people write it: an offset or a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import click

_OFFSET = re.compile(r"-?[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """Exactly one of the two is set."""

    offset: int | None = None
    timestamp: int | None = None
    """ms since the Unix epoch: the first record at or after it."""


class PositionType(click.ParamType[Position]):
    """An integer is an offset (negative: from the end), anything else an ISO 8601 time."""

    name = "OFFSET|TIME"

    def convert(
        self, value: str | Position, param: click.Parameter | None, ctx: click.Context | None
    ) -> Position:
        if isinstance(value, Position):
            return value
        if _OFFSET.fullmatch(value):
            return Position(offset=int(value))
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither an offset nor a time like 2026-01-31T12:00:00Z", param, ctx
            )
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return Position(timestamp=max(0, round(moment.timestamp() * 1000)))
