"""What has to hold for an append to be taken, beside the stream's next offset."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .arguments import checked_index


@dataclass(frozen=True, slots=True)
class Unchanged:
    """No record of `key` lies behind offset `since`; -1: there is none."""

    key: bytes | str
    since: int


@dataclass(frozen=True, slots=True)
class NoMatch:
    """A search of the index with `eq` finds nothing behind offset `after`; -1: nothing at all."""

    index: str
    eq: str
    after: int


Condition: TypeAlias = Unchanged | NoMatch


class Conditions(NamedTuple):
    """All of one append, as they are sent."""

    if_offset: int | None
    packed: str | None

    @property
    def settled_by(self) -> int | None:
        """An offset in the way that is larger is there for good: the append was not taken."""
        return -1 if self.if_offset is None and self.packed is not None else self.if_offset


NO_CONDITIONS = Conditions(None, None)


def packed_condition(condition: object) -> str | None:
    """Return the condition as a parameter of the request. Raises TypeError, ValueError."""
    if condition is None:
        return None
    if isinstance(condition, Unchanged):
        key = condition.key
        if not isinstance(key, bytes | str):
            raise TypeError(f"key: bytes or str are wanted, not {type(key).__name__}")
        raw = key.encode() if isinstance(key, str) else key
        of_key = {"key_b64": base64.b64encode(raw).decode(), "since": _checked(condition.since)}
        return json.dumps({"unchanged": of_key})
    if isinstance(condition, NoMatch):
        if not isinstance(condition.eq, str):
            raise TypeError(f"eq: a str is wanted, not {type(condition.eq).__name__}")
        name, after = checked_index(condition.index), _checked(condition.after)
        return json.dumps({"no_match": {"index": name, "eq": condition.eq, "after": after}})
    raise TypeError(f"only_if: Unchanged or NoMatch are wanted, not {type(condition).__name__}")


def _checked(offset: object) -> int:
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise TypeError(f"an offset is wanted, not {type(offset).__name__}")
    if offset < -1:
        raise ValueError(f"offset {offset}: -1 or more is wanted")
    return offset
