"""Who is in the cluster, as the log says it.

A config entry carries the whole list. The newest one in the log rules, committed or not; one that
is truncated rules no more. Before the first, the settings do (`--cluster`).

What votes and counts is not a name but a node with its disk: an id *and* an incarnation, which a
data folder draws when it is made. A node that comes back under its old id with an empty disk is
another voter, and takes the old one's place as any other would: by two changes, of which the first
takes the old one out of the count. A voter whose incarnation nobody has heard yet has a seat that
nobody fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from .commands import BadEntry
from .config import Port
from .errors import MembershipConflict

LEARNER, VOTER = "learner", "voter"


class Member(msgspec.Struct, frozen=True, array_like=True):
    id: str
    host: str
    port: Port
    """Where it listens for the others."""
    is_voter: bool = True
    incarnation: str | None = None
    """Of the data folder that counts; None until the leader has heard from it."""
    becomes_voter: bool = False
    """A learner that the leader promotes once it has caught up."""

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def role(self) -> str:
        return VOTER if self.is_voter else LEARNER


class Config(msgspec.Struct, frozen=True, array_like=True):
    """All members, ordered by id."""

    members: tuple[Member, ...]

    @classmethod
    def of(cls, members: Iterable[Member]) -> Config:
        return cls(tuple(sorted(members, key=lambda member: member.id)))

    def get(self, node: str) -> Member | None:
        return next((member for member in self.members if member.id == node), None)

    def put(self, member: Member) -> Config:
        """With `member` in the place of the one with its id, or added."""
        return Config.of([*self.without(member.id).members, member])

    def without(self, node: str) -> Config:
        return Config(tuple(member for member in self.members if member.id != node))

    def voters(self) -> dict[str, str | None]:
        """Incarnations by id."""
        return {member.id: member.incarnation for member in self.members if member.is_voter}


def encode_config(config: Config) -> bytes:
    return msgspec.msgpack.encode(config)


def decode_config(payload: bytes | memoryview) -> Config:
    """Raises BadEntry."""
    try:
        return msgspec.msgpack.decode(payload, type=Config)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadEntry(f"an entry holds no list of members: {error}") from None


def is_one_step(old: Config, new: Config) -> bool:
    """Do every two majorities of the old and the new voters meet?

    They do if one voter comes or goes, or somebody takes a seat that nobody filled (Ongaro's
    thesis, section 4.1).
    """
    before, after = old.voters(), new.voters()
    changed = {node for node in before | after if before.get(node, "") != after.get(node, "")}
    if len(changed) != 1:
        return not changed
    node = changed.pop()
    return node not in before or node not in after or before[node] is None


def added(config: Config, node: str, address: tuple[str, int], *, as_voter: bool) -> Config:
    """`config` on the way to having `node` with that address and role; MembershipConflict."""
    for member in config.members:
        if member.address == address and member.id != node:
            raise MembershipConflict(f"{member.id} has this address", node=member.id)
        if member.becomes_voter and member.id != node:
            raise MembershipConflict(f"{member.id} is still catching up", node=member.id)
    known = config.get(node) or Member(node, *address, is_voter=False)
    host, port = address
    changed = msgspec.structs.replace(
        known,
        host=host,
        port=port,
        is_voter=known.is_voter and as_voter,
        becomes_voter=as_voter and not known.is_voter,
    )
    return config.put(changed)


def removed(config: Config, node: str) -> Config:
    """`config` without `node`; MembershipConflict if nobody could lead then."""
    if list(config.voters()) == [node]:
        raise MembershipConflict(f"{node} is the only voter", node=node)
    return config.without(node)


class Members:
    """The configs in the log that may still matter, oldest first, seen by one node."""

    def __init__(
        self, node_id: str, incarnation: str, founders: Config, *, joins: bool = False
    ) -> None:
        """`founders`: whom the settings name. `joins`: this node is not one of them."""
        self.node_id = node_id
        self.incarnation = incarnation
        self._founders = founders
        self._joins = joins
        self._history: list[tuple[int, Config]] = []
        self.changes = 0
        """Rises with every change of who is, or may turn out to be, a member."""

    @property
    def is_known(self) -> bool:
        """Does the log, or the checkpoint, say who is a member?"""
        return bool(self._history)

    @property
    def newest(self) -> Config:
        return self._history[-1][1] if self._history else self._founders

    @property
    def index(self) -> int:
        """The newest config's; 0 if the settings rule."""
        return self._history[-1][0] if self._history else 0

    @property
    def is_listed(self) -> bool:
        """Is this node a member, as far as it knows?"""
        return (self.is_known or not self._joins) and self.newest.get(self.node_id) is not None

    @property
    def is_voter(self) -> bool:
        """May this node campaign?"""
        me = self.newest.get(self.node_id)
        if me is None or not me.is_voter:
            return False
        return me.incarnation == self.incarnation if self.is_known else not self._joins

    def may_vote(self, addressed: str | None) -> bool:
        """May this node vote when asked for the vote of that incarnation?

        What the candidate's log says counts, not this one's, which may be behind. None: its log
        says nothing of members, the cluster begins; who knows better stays out of it.
        """
        if addressed is None:
            return not self.is_known and not self._joins
        return addressed == self.incarnation

    def founding(self, heard: Mapping[str, str]) -> Config:
        """The first config: the settings', with the incarnations heard by now."""
        heard = {**heard, self.node_id: self.incarnation}
        return Config.of(
            msgspec.structs.replace(member, incarnation=heard.get(member.id))
            for member in self._founders.members
        )

    def founders_differ(self) -> bool:
        """Do the settings name others, or other addresses, than the log?"""

        def addresses(config: Config) -> dict[str, tuple[str, int]]:
            return {member.id: member.address for member in config.members}

        return self.is_known and addresses(self._founders) != addresses(self.newest)

    def founder_address(self, node: str) -> tuple[str, int] | None:
        """Where the settings say that node is."""
        member = self._founders.get(node)
        return member.address if member is not None else None

    def may_be(self, node: str) -> bool:
        """Is it a member by the newest list, or by one that rules again if that is truncated?"""
        configs = [config for _, config in self._history] or [self._founders]
        return any(config.get(node) is not None for config in configs)

    def add(self, index: int, config: Config) -> None:
        self._history.append((index, config))
        self.changes += 1

    def truncate(self, from_index: int) -> bool:
        """Entries from there on are gone; True if another config rules now."""
        before = len(self._history)
        self._history = [each for each in self._history if each[0] < from_index]
        has_changed = len(self._history) < before
        self.changes += has_changed
        return has_changed

    def settle(self, index: int) -> None:
        """The config at `index` was applied: nothing before it can rule again."""
        before = len(self._history)
        self._history = [each for each in self._history if each[0] >= index]
        self.changes += len(self._history) < before


def next_step(
    config: Config, heard: Mapping[str, str], is_caught_up: Callable[[str], bool]
) -> Config | None:
    """What the leader changes by itself: incarnations it did not know, learners that are ready."""
    for member in config.members:
        incarnation = heard.get(member.id, member.incarnation)
        if incarnation != member.incarnation:
            is_new = member.is_voter and member.incarnation is not None
            return config.put(
                msgspec.structs.replace(
                    member,
                    incarnation=incarnation,
                    is_voter=member.is_voter and not is_new,
                    becomes_voter=member.becomes_voter or is_new,
                )
            )
        if member.becomes_voter and is_caught_up(member.id):
            return config.put(msgspec.structs.replace(member, is_voter=True, becomes_voter=False))
    return None
