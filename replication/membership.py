"""Changes of members, asked for on the leader and waited for.

What one call wants may take several entries: a new voter is added as a learner, told the log, and
promoted by whoever leads then (`members.next_step`). So a call that is cut off leaves a change that
goes on, and the same call again waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .config import Address
from .errors import MembershipConflict, OutcomeUnknown, UnknownMember
from .members import Config, added, removed
from .raft import RaftCore

POLL_S = 0.01
PATIENCE_S = 1.0
ALIVE_S = 1.0
"""A node that answered so lately is alive where it is."""


class Membership:
    def __init__(self, core: RaftCore, change: Callable[[Config], None]) -> None:
        self._core = core
        self._change = change
        self._is_changing = False

    async def add(self, node: str, address: Address, *, as_voter: bool, timeout_s: float) -> None:
        """Raises MembershipConflict, OutcomeUnknown."""
        known = self._core.members.newest.get(node)
        if known is not None and known.address != address and self._is_alive(node):
            raise MembershipConflict(f"{node} is alive at another address", node=node)

        def is_done(config: Config) -> bool:
            member = config.get(node)
            return (
                member is not None
                and (member.address, member.is_voter) == (address, as_voter)
                and not member.becomes_voter
            )

        await self._run(
            lambda old: added(old, node, address, as_voter=as_voter), is_done, timeout_s
        )

    async def remove(self, node: str, *, timeout_s: float) -> None:
        """Raises MembershipConflict, UnknownMember, OutcomeUnknown."""
        await self._run(
            lambda old: removed(old, node), lambda config: config.get(node) is None, timeout_s
        )

    def check_removal(self, node: str) -> None:
        """Raises UnknownMember, MembershipConflict."""
        if self._core.members.newest.get(node) is None:
            raise UnknownMember(f"{node} is not a member", node=node)
        removed(self._core.members.newest, node)

    def _is_alive(self, node: str) -> bool:
        seen_s = self._core.last_seen_s(node)
        return self._core.is_connected(node) and seen_s is not None and seen_s < ALIVE_S

    async def _run(
        self,
        plan: Callable[[Config], Config],
        is_done: Callable[[Config], bool],
        timeout_s: float,
    ) -> None:
        with self._alone():
            begun = False
            try:
                async with asyncio.timeout(timeout_s):
                    await self._begin(plan)
                    begun = True
                    while not (is_done(self._core.members.newest) and self._is_applied()):
                        self._check_leads(begun)
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                if begun:
                    raise OutcomeUnknown("not done in time; it goes on by itself") from None
                raise MembershipConflict("another change is not committed yet") from None

    async def _begin(self, plan: Callable[[Config], Config]) -> None:
        """Propose what `plan` says; a leader that is new has to hear from the others first."""
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + PATIENCE_S
        while True:
            self._check_leads(begun=False)
            if self._core.may_change_members():
                old = self._core.members.newest
                wanted = plan(old)
                if wanted == old:
                    return
                try:
                    self._change(wanted)
                except MembershipConflict:
                    if loop.time() > patient_until:
                        raise
                else:
                    return
            await asyncio.sleep(POLL_S)

    def _is_applied(self) -> bool:
        return self._core.applied_index() >= self._core.members.index

    def _check_leads(self, begun: bool) -> None:
        if self._core.is_leader():
            return
        if begun:
            raise OutcomeUnknown("leadership was lost; the change may go on")
        raise MembershipConflict("leadership was lost before the change began")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._is_changing:
            raise MembershipConflict("another change of members is under way")
        self._is_changing = True
        try:
            yield
        finally:
            self._is_changing = False
