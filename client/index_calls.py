"""The calls of a client that concern secondary indexes: definitions, searches, keys."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias

from . import wire
from .arguments import checked_choice, checked_count, checked_index, checked_stream
from .caller import Call, Caller
from .connection import SessionToken
from .errors import UnknownIndex
from .index_answers import (
    IndexInfo,
    SearchPage,
    index_from,
    indexes_from,
    search_page_from,
)
from .read_options import CONSISTENCIES, ORDERS
from .record import Record
from .retry import Attempts

Term: TypeAlias = bytes | str | float | bool
"""A str or bytes as it stands; on a `value:` index it is a number, true, false or null if it says
so in JSON ('"5"' is the text 5), which is how numbers and truth values are sent."""

KINDS = ("btree", "bloom")


class IndexCalls:
    """The part of `AsyncClient` that indexes use."""

    _caller: Caller
    _token: SessionToken

    @abstractmethod
    def _attempts(self, timeout: float | None, extra_s: float = 0.0) -> Attempts:
        """The attempts of one call, up to `timeout` (seconds) and `extra_s` from now."""

    async def create_index(
        self,
        stream: str,
        name: str,
        on: str,
        *,
        kind: str = "btree",
        timeout: float | None = None,
    ) -> IndexInfo:
        """Give a stream an index on `key`, `header:NAME` or `value:/json/pointer`.

        Fine if it is there already; with another definition it is built anew. Appends go on, and
        searches are right from now on. Raises UnknownStream.
        """
        checked_choice("kind", kind, KINDS)
        body = json.dumps({"kind": kind, "on": on}).encode()
        call = Call("PUT", _index_path(stream, name), body=body, writes=True, tells_timeout=True)
        return await self._caller.call(call, self._attempts(timeout), index_from)

    async def drop_index(self, stream: str, name: str, *, timeout: float | None = None) -> None:
        """Raises UnknownStream, UnknownIndex."""
        attempts = self._attempts(timeout)
        call = Call("DELETE", _index_path(stream, name), writes=True, tells_timeout=True)
        try:
            await self._caller.call(call, attempts, lambda body: None)
        except UnknownIndex:
            # The repeat of a removal that was carried out finds nothing any more.
            if not attempts.unanswered:
                raise

    async def index(self, stream: str, name: str, *, timeout: float | None = None) -> IndexInfo:
        """Raises UnknownStream, UnknownIndex."""
        call = Call("GET", _index_path(stream, name), query=self._own())
        return await self._caller.call(call, self._attempts(timeout), index_from)

    async def indexes(self, stream: str, *, timeout: float | None = None) -> list[IndexInfo]:
        """Raises UnknownStream."""
        path = wire.path_of("v1", "streams", checked_stream(stream), "indexes")
        call = Call("GET", path, query=self._own())
        return await self._caller.call(call, self._attempts(timeout), indexes_from)

    async def search(
        self, stream: str, index: str, *, limit: int = 500, **terms: Any
    ) -> AsyncGenerator[Record, None]:
        """Yield all records that the index finds, `limit` of them from a call; terms as in
        `search_page`.
        """
        async for page in self.search_pages(stream, index, limit=limit, **terms):
            for record in page.records:
                yield record

    async def search_pages(
        self, stream: str, index: str, *, cursor: str | None = None, **terms: Any
    ) -> AsyncGenerator[SearchPage, None]:
        """Yield the pages of a search; terms as in `search_page`."""
        while True:
            page = await self.search_page(stream, index, cursor=cursor, **terms)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    async def search_page(
        self,
        stream: str,
        index: str,
        *,
        eq: Term | None = None,
        ge: Term | None = None,
        lt: Term | None = None,
        prefix: bytes | str | None = None,
        order: str = "asc",
        limit: int = 500,
        cursor: str | None = None,
        consistency: str = "local",
        max_lag_ms: int | None = None,
        after: int | None = None,
        timeout: float | None = None,
    ) -> SearchPage:
        """Return some records whose value is `eq`, or in `[ge, lt)`, or begins with `prefix`.

        With `eq` they come by offset, oldest or (`desc`) newest first, else by value. A page may be
        short, even empty, and have a cursor. A bloom index takes `eq` alone. Raises UnknownStream,
        UnknownIndex, InvalidRequest, or Unavailable while an index is being built whose order would
        need a look at too many records.
        """
        checked_choice("consistency", consistency, CONSISTENCIES)
        checked_choice("order", order, ORDERS)
        query: dict[str, int | str | bytes | None] = {
            "index": checked_index(index),
            "eq": _text_of("eq", eq),
            "ge": _text_of("ge", ge),
            "lt": _text_of("lt", lt),
            "prefix": _text_of("prefix", prefix),
            "order": None if order == "asc" else order,
            "limit": checked_count("limit", limit, least=1),
            "cursor": cursor,
        }
        path = wire.path_of("v1", "streams", checked_stream(stream), "search")
        call = Call("GET", path, query=query | self._how_new(consistency, max_lag_ms, after))
        page = await self._caller.call(call, self._attempts(timeout), search_page_from)
        self._token.see(page.index)
        return page

    async def get(
        self,
        stream: str,
        key: bytes | str,
        *,
        as_of: int | None = None,
        consistency: str = "local",
        max_lag_ms: int | None = None,
        after: int | None = None,
        timeout: float | None = None,
    ) -> Record:
        """Return the newest record of a key, at or below offset `as_of`.

        Raises UnknownKey, also if that record is a tombstone; UnknownStream, OffsetTrimmed. Fast
        with a btree index on key.
        """
        if not isinstance(key, bytes | str):
            raise TypeError(f"key: bytes or str is wanted, not {type(key).__name__}")
        if as_of is not None:
            checked_count("as_of", as_of)
        checked_choice("consistency", consistency, CONSISTENCIES)
        path = wire.path_of("v1", "streams", checked_stream(stream), "keys")
        quoted = wire.quoted(key)
        if not quoted:
            raise ValueError("key: an empty one has no address; search for it with an index")
        query = {"as_of": as_of} | self._how_new(consistency, max_lag_ms, after)
        call = Call("GET", f"{path}/{quoted}", query=query)
        return await self._caller.call(call, self._attempts(timeout), wire.record_from)

    def _own(self) -> dict[str, int | str | bytes | None]:
        return {"after": self._token.index or None}

    def _how_new(
        self, consistency: str, max_lag_ms: int | None, after: int | None
    ) -> dict[str, int | str | bytes | None]:
        return {
            "consistency": None if consistency == "local" else consistency,
            "max_lag_ms": max_lag_ms,
            "after": self._token.index or None if after is None else after,
        }


def _index_path(stream: str, name: str) -> str:
    return wire.path_of("v1", "streams", checked_stream(stream), "indexes", checked_index(name))


def _text_of(name: str, term: object) -> bytes | str | None:
    if term is None or isinstance(term, bytes | str):
        return term
    if isinstance(term, bool | int | float):
        return json.dumps(term)
    raise TypeError(f"{name}: bytes, str or a number is wanted, not {type(term).__name__}")
