"""Transactions: appends and commits that happen all or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from ...replication.types import Append, OffsetCommit, Transaction
from ..streams_config import RECORDS_MAX
from .answers import answer
from .bodies import Form, read_struct
from .compression import compressed
from .context import Context, context_of
from .groups import LeaseNumber, lease_number
from .problems import Problem, invalid
from .queries import Count, WriteQuery
from .records import (
    JsonAppend,
    MsgpackAppend,
    build_append,
    describe,
    idempotency_key,
    to_records,
)
from .sent_batch import record_bytes_limit
from .streams import checked_name

PARTS_MAX: Final = 100
"""Appends, and as many commits."""


class JsonPart(JsonAppend, kw_only=True):
    stream: str


class MsgpackPart(MsgpackAppend, kw_only=True):
    stream: str


class CommitPart(msgspec.Struct, forbid_unknown_fields=True):
    group: str
    stream: str
    offset: Count
    lease: LeaseNumber = UNSET


class TxBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    commits: Annotated[list[CommitPart], Meta(max_length=PARTS_MAX)] | UnsetType = UNSET


class JsonTx(TxBody, kw_only=True):
    appends: Annotated[list[JsonPart], Meta(max_length=PARTS_MAX)] | UnsetType = UNSET


class MsgpackTx(TxBody, kw_only=True):
    appends: Annotated[list[MsgpackPart], Meta(max_length=PARTS_MAX)] | UnsetType = UNSET


_FORM: Final[Form[JsonTx | MsgpackTx]] = Form(JsonTx, MsgpackTx)


async def transact(request: web.Request, query: WriteQuery) -> web.Response:
    """POST /v1/tx; on the leader."""
    key = idempotency_key(request)
    body = await read_struct(request, _FORM)
    context = context_of(request)
    parts: Sequence[JsonPart | MsgpackPart] = (
        () if isinstance(body.appends, UnsetType) else body.appends
    )
    commits = () if isinstance(body.commits, UnsetType) else body.commits
    if not parts and not commits:
        raise invalid("body", "a transaction has at least one append or commit")
    _check_record_count(parts)
    appends = [await _append_of(context, part, at) for at, part in enumerate(parts)]
    transaction = Transaction(appends, _commits_of(commits), key)
    receipt = await context.live_replica().transact(transaction, timeout_s=query.timeout_ms / 1000)
    described: dict[str, Any] = {
        "appends": [describe(each) for each in receipt.appends],
        "commits": [asdict(each) for each in receipt.commits],
        "term": receipt.term,
        "index": receipt.index,
        "duplicate": receipt.duplicate,
        "durability": "quorum",
    }
    return answer(request, described)


def _check_record_count(parts: Sequence[JsonPart | MsgpackPart]) -> None:
    count = sum(len(part.records) for part in parts)
    if count > RECORDS_MAX:
        raise invalid("appends", f"at most {RECORDS_MAX} records in all; came {count}")


async def _append_of(context: Context, part: JsonPart | MsgpackPart, at: int) -> Append:
    with _blamed_on("appends", at):
        stream = checked_name("stream", part.stream, writes=True)
        records = await to_records(part)
        limit = record_bytes_limit(context, stream)
        append = build_append(stream, part, records, record_bytes_limit=limit)
    return await compressed(context, append)


def _commits_of(parts: Sequence[CommitPart]) -> list[OffsetCommit]:
    places: set[tuple[str, str]] = set()
    commits = []
    for at, part in enumerate(parts):
        with _blamed_on("commits", at):
            checked_name("group", part.group, writes=True)
            checked_name("stream", part.stream, writes=True)
            if (part.group, part.stream) in places:
                raise invalid("stream", "this group commits this stream above already")
        places.add((part.group, part.stream))
        lease = lease_number(part.lease)
        commits.append(OffsetCommit(part.group, part.stream, part.offset, lease))
    return commits


@contextmanager
def _blamed_on(part: str, at: int) -> Iterator[None]:
    """Have a refusal name the part it is about, as the state machine's refusals do."""
    try:
        yield
    except Problem as problem:
        facts = {"part": part, "part_index": at} | problem.facts
        separator = ": "
        if "field" in facts:
            facts["field"] = f"{part}[{at}].{facts['field']}"
            separator = "."
        detail = f"{part}[{at}]{separator}{problem.detail}"
        raise Problem(problem.code, detail, **facts) from problem
