"""Query parameters as msgspec structs: typed, bounded, and no unknown ones.

Every query may hold `redirect` (0 or 1); only what needs the leader heeds it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType, inspect

from .problems import invalid
from .validation import refusal

INTEGER_MAX: Final = 2**63 - 1
TIMEOUT_MS_DEFAULT: Final = 10_000

Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Timeout: TypeAlias = Annotated[int, Meta(ge=1, le=60_000)]

_INTEGER = re.compile(r"-?[0-9]{1,30}", re.ASCII)


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parameters that every request takes."""

    redirect: Literal[0, 1] = 0


class WriteQuery(Query, frozen=True, kw_only=True):
    timeout_ms: Timeout = TIMEOUT_MS_DEFAULT


class AppendQuery(WriteQuery, frozen=True, kw_only=True):
    if_offset: Count | UnsetType = UNSET
    """The condition of a batch that is sent as it is; elsewhere it is in the body."""
    condition: str | UnsetType = msgspec.field(name="if", default=UNSET)
    """The others of such a batch, as the JSON that `if` is in a body."""


class LevelQuery(Query, frozen=True, kw_only=True):
    """How new an answer has to be."""

    consistency: Literal["local", "bounded", "linearizable"] = "local"
    max_lag_ms: Count | UnsetType = UNSET
    after: Count | UnsetType = UNSET


class ReadQuery(LevelQuery, frozen=True, kw_only=True):
    offset: Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)] | UnsetType = UNSET
    timestamp: Count | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 500
    max_bytes: Annotated[int, Meta(ge=1, le=8 << 20)] = 1 << 20
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0
    key: str | UnsetType = UNSET
    until: Count | UnsetType = UNSET
    order: Literal["asc", "desc"] = "asc"


Q = TypeVar("Q", bound=Query)


def read_query(request: web.Request, wanted: type[Q]) -> Q:
    """Return the request's parameters; raises Problem `invalid_request`."""
    came: dict[str, Any] = {}
    integers = _integers(wanted)
    for name, text in request.query.items():
        if name in came:
            raise invalid(name, "this parameter is there twice")
        came[name] = int(text) if name in integers and _INTEGER.fullmatch(text) else text
    try:
        return msgspec.convert(came, wanted)
    except msgspec.ValidationError as error:
        raise refusal(error, wanted, came, what="parameter") from error


_integers_of: dict[type[Query], frozenset[str]] = {}


def _integers(wanted: type[Query]) -> frozenset[str]:
    """Return the names of the parameters that are numbers."""
    if wanted not in _integers_of:
        info = inspect.type_info(wanted)
        assert isinstance(info, inspect.StructType)
        _integers_of[wanted] = frozenset(f.encode_name for f in info.fields if _is_integer(f.type))
    return _integers_of[wanted]


def _is_integer(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return any(_is_integer(choice) for choice in info.types)
    if isinstance(info, inspect.LiteralType):
        return all(isinstance(value, int) for value in info.values)
    return isinstance(info, inspect.IntType)
