"""The calls of a client that concern consumer groups and transactions."""

from __future__ import annotations

import json
import secrets
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from . import wire
from .arguments import (
    checked_choice,
    checked_count,
    checked_group,
    checked_key,
    checked_member,
    checked_stream,
)
from .caller import Call, Caller
from .connection import SessionToken
from .errors import CuteError, LeaseLost, Refused, UnknownGroup
from .group_answers import (
    CommitReceipt,
    GroupInfo,
    Lease,
    TxAppend,
    TxCommit,
    TxReceipt,
    commit_receipt_from,
    group_from,
    groups_from,
    lease_from,
    position_from,
    tx_receipt_from,
)
from .record import records_of
from .retry import Attempts, settled

LEASE_TTL_MS = 30_000

T = TypeVar("T")


class GroupCalls:
    """The part of `AsyncClient` that groups use."""

    _caller: Caller
    _token: SessionToken

    def __init__(self) -> None:
        self.member = secrets.token_hex(8)
        """Who holds the leases of this client; drawn, so that no two clients are the same."""

    @abstractmethod
    def _attempts(self, timeout: float | None, extra_s: float = 0.0) -> Attempts:
        """The attempts of one call, up to `timeout` (seconds) and `extra_s` from now."""

    # --- offsets

    async def commit_offset(
        self,
        group: str,
        stream: str,
        offset: int,
        *,
        lease: Lease | int | None = None,
        timeout: float | None = None,
    ) -> CommitReceipt:
        """Note that `group` has done everything below `offset`; twice is as good as once.

        Under a lease no late copy of an older commit can undo this one. Raises LeaseLost if the
        lease is another's, or without one if somebody holds it; ConditionFailed for going back
        under a lease; BeyondHighWatermark; UnknownStream.
        """
        body: dict[str, object] = {"offset": checked_count("offset", offset)}
        number = _lease_number(lease)
        if number is not None:
            body["lease"] = number
        path = _path_of(group, stream, "offset")
        receipt = await self._change("PUT", path, body, commit_receipt_from, timeout)
        self._token.see(receipt.index)
        return receipt

    async def committed_offset(
        self,
        group: str,
        stream: str,
        *,
        consistency: str = "linearizable",
        timeout: float | None = None,
    ) -> int | None:
        """Return what `group` has committed; None if nothing yet. Raises UnknownStream."""
        checked_choice("consistency", consistency, ("local", "linearizable"))
        call = Call(
            "GET",
            _path_of(group, stream, "offset"),
            query=self._level(consistency),
        )
        try:
            found = await self._caller.call(call, self._attempts(timeout), position_from)
        except UnknownGroup:
            return None
        return found.offset

    def _level(self, consistency: str = "local") -> dict[str, int | str | bytes | None]:
        level = None if consistency == "local" else consistency
        return {"consistency": level, "after": self._token.index or None}

    # --- leases

    async def lease(
        self,
        group: str,
        stream: str,
        *,
        member: str | None = None,
        ttl_ms: int = LEASE_TTL_MS,
        timeout: float | None = None,
    ) -> Lease:
        """Take the lease on `group`'s offset in `stream`, or renew it for `ttl_ms` from now.

        `member` says who asks, by default this client; one name is one holder, so no two processes
        may share it. Raises LeaseLost while somebody else holds it (`facts` says for how long).
        """
        body = {
            "member": self.member if member is None else checked_member(member),
            "ttl_ms": checked_count("ttl_ms", ttl_ms, least=1),
        }
        path = _path_of(group, stream, "lease")
        lease = await self._change("POST", path, body, lease_from, timeout)
        self._token.see(lease.index)
        return lease

    async def release_lease(self, lease: Lease, *, timeout: float | None = None) -> None:
        """Give the lease back at once; fine if it has ended. LeaseLost if somebody else has it."""
        path = _path_of(lease.group, lease.stream, "lease")
        await self._change("DELETE", path, {"lease": lease.number}, lambda body: None, timeout)

    # --- groups

    async def groups(self, *, timeout: float | None = None) -> list[GroupInfo]:
        """Return all groups with their offsets, lags and leases."""
        call = Call("GET", wire.path_of("v1", "groups"), query=self._level())
        return await self._caller.call(call, self._attempts(timeout), groups_from)

    async def group(self, name: str, *, timeout: float | None = None) -> GroupInfo:
        """Raises UnknownGroup."""
        path = wire.path_of("v1", "groups", checked_group(name))
        call = Call("GET", path, query=self._level())
        return await self._caller.call(call, self._attempts(timeout), group_from)

    async def delete_group(self, name: str, *, timeout: float | None = None) -> None:
        """Forget a group and its offsets. Raises UnknownGroup; LeaseLost while it is leased."""
        attempts = self._attempts(timeout)
        path = wire.path_of("v1", "groups", checked_group(name))
        call = Call("DELETE", path, writes=True, tells_timeout=True)
        try:
            await self._caller.call(call, attempts, lambda body: None)
        except UnknownGroup:
            # The repeat of a deletion that was carried out finds nothing any more.
            if not attempts.unanswered:
                raise

    # --- transactions

    async def transact(
        self,
        appends: Sequence[TxAppend] = (),
        commits: Sequence[TxCommit] = (),
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> TxReceipt:
        """Do all of it, exactly once, or nothing.

        Without `idempotency_key` one is drawn for this call; with one, repeats by other processes
        get the first receipts, too. What is raised says which part is to blame: `facts["part"]` is
        `appends` or `commits`, `facts["part_index"]` its place there. ConditionFailed, LeaseLost,
        UnknownStream, BeyondHighWatermark, IdempotencyConflict …
        """
        key = secrets.token_hex(16) if idempotency_key is None else checked_key(idempotency_key)
        if not appends and not commits:
            raise ValueError("a transaction has at least one append or commit")
        call = Call(
            "POST",
            wire.path_of("v1", "tx"),
            headers={wire.IDEMPOTENCY_KEY_HEADER: key},
            body=wire.pack_transaction(
                [_packed(append) for append in appends], [_shape_of(commit) for commit in commits]
            ),
            content_type=wire.MSGPACK,
            writes=True,
            tells_timeout=True,
        )
        attempts = self._attempts(timeout)
        try:
            receipt = await self._caller.call(call, attempts, tx_receipt_from)
        except Refused as refusal:
            failure = _settled(refusal, appends, commits, unanswered=attempts.unanswered)
            if failure is refusal:
                raise
            raise failure from refusal
        self._token.see(receipt.index)
        return receipt

    async def _change(
        self,
        method: str,
        path: str,
        body: dict[str, object],
        decode: Callable[[Any], T],
        timeout: float | None,
    ) -> T:
        """Carry out what may be repeated."""
        attempts = self._attempts(timeout)
        call = Call(method, path, body=json.dumps(body).encode(), writes=True, tells_timeout=True)
        try:
            return await self._caller.call(call, attempts, decode)
        except Refused as refusal:
            failure = settled(refusal, unanswered=attempts.unanswered)
            if failure is refusal:
                raise
            raise failure from refusal


def _path_of(group: str, stream: str, what: str) -> str:
    return wire.path_of(
        "v1", "groups", checked_group(group), "streams", checked_stream(stream), what
    )


def _lease_number(lease: Lease | int | None) -> int | None:
    if lease is None:
        return None
    return lease.number if isinstance(lease, Lease) else checked_count("lease", lease)


def _packed(append: TxAppend) -> bytes:
    if append.if_offset is not None:
        checked_count("if_offset", append.if_offset)
    records = [wire.pack_record(record) for record in records_of(append.records)]
    stream = checked_stream(append.stream)
    return wire.pack_append(records, if_offset=append.if_offset, stream=stream)


def _shape_of(commit: TxCommit) -> dict[str, object]:
    shape: dict[str, object] = {
        "group": checked_group(commit.group),
        "stream": checked_stream(commit.stream),
        "offset": checked_count("offset", commit.offset),
    }
    number = _lease_number(commit.lease)
    return shape if number is None else shape | {"lease": number}


def _settled(
    refusal: Refused,
    appends: Sequence[TxAppend],
    commits: Sequence[TxCommit],
    *,
    unanswered: bool,
) -> CuteError:
    """Return what `refusal` means for a transaction of which an attempt may be `unanswered`.

    Had that attempt been carried out, its key would have answered the receipts. It may still be
    carried out later, unless what refused this one can never change.
    """
    at = refusal.facts.get("part_index")
    parts: Sequence[TxAppend | TxCommit] = appends
    if refusal.facts.get("part") == "commits":
        parts = commits
    part = parts[at] if isinstance(at, int) and 0 <= at < len(parts) else None
    if isinstance(part, TxCommit):
        if isinstance(refusal, LeaseLost) and part.lease is not None:
            return refusal
        return settled(refusal, unanswered=unanswered, if_offset=part.offset)
    wanted = None if part is None else part.if_offset
    return settled(refusal, unanswered=unanswered, if_offset=wanted)
