"""One node's replica: what the front end calls.

Everything here runs on the event loop. Writes are for the leader only (`NotLeader` says who that
is); reads work on any node and show a committed prefix.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, cast

from ..storage.errors import StorageError
from ..storage.filesystem import OS_FILES, FileSystem
from .coalescer import Pending, Settle
from .commands import (
    AlterStream,
    Command,
    CreateStream,
    DeleteStream,
    RegisterProducer,
    TrimStream,
)
from .conditions import ConditionCalls
from .config import Address, ReplicaConfig
from .engine import Engine
from .errors import (
    BatchTooLarge,
    DiskFull,
    NoLeader,
    NotCaughtUp,
    NotLeader,
    OutcomeUnknown,
    ReplicationError,
    ShuttingDown,
    Throttled,
)
from .gate import Gate
from .group_calls import BODY_BYTES_MAX
from .guards import Guard, Placed
from .journal import RaftJournal
from .measures import DamagedPlace, Measures, Vitals
from .members import VOTER, Member
from .membership import Membership
from .peers import Peers
from .raft import RaftCore
from .reads import resolve
from .recovery import Recovered, recover
from .runtime import AsyncioRuntime
from .types import Append, ClusterStatus, NodeStatus, Receipt, StreamConfig, StreamInfo

HAND_OVER_TIMEOUT_S = 2.0


class Replica(ConditionCalls):
    """Made by `Replica.start`; `stop` hands leadership over and flushes."""

    def __init__(self, config: ReplicaConfig, files: FileSystem) -> None:
        super().__init__()
        self.id = config.id
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Resolves when the node must die: exit at once, without another word to anybody."""
        self._config = config
        self._disk = files
        self._recovered: Recovered
        self._threads: AsyncioRuntime
        self._engine: Engine
        self._peers = Peers(config.id, config.raft_address, config.address, config.http_url)
        self._membership: Membership
        self._opening = asyncio.Lock()
        self._measures = Measures()

    @classmethod
    async def start(cls, config: ReplicaConfig, *, files: FileSystem = OS_FILES) -> Replica:
        """Recover, listen and take part. Raises StorageError or OSError."""
        replica = cls(config, files)
        await replica._open()
        try:
            await replica._peers.start(replica._engine)
        except OSError:
            await replica._close()
            raise
        replica._engine.start()
        return replica

    async def _open(self) -> None:
        """Recover from the data folder and put everything together around it."""
        loop = asyncio.get_running_loop()
        recovered = await loop.run_in_executor(None, recover, self._config, self._disk)
        self._recovered = recovered
        self._threads = AsyncioRuntime()
        journal = RaftJournal(recovered.wal)
        gate = Gate(journal, self._peers.emit)
        core = RaftCore(
            recovered.members,
            timing=self._config.timing,
            journal=journal,
            gate=gate,
            machine=recovered.machine,
        )
        self._peers.cluster_id = recovered.folder.cluster_id or recovered.machine.cluster_id
        self._peers.follow(recovered.members)
        self._engine = Engine(
            runtime=self._threads,
            core=core,
            gate=gate,
            journal=journal,
            machine=recovered.machine,
            stream_files=recovered.stream_files,
            index_files=recovered.index_files,
            folder=recovered.folder,
            files=self._disk,
            limits=self._config.limits,
            measures=self._measures,
            on_failure=self._fail,
            on_applied=self._announce,
            on_members=partial(self._peers.follow, recovered.members),
            on_outdated=self._reopen_soon,
        )
        self._serve(
            recovered.machine,
            recovered.stream_files,
            core,
            self._threads,
            self._engine.repairs,
            self._engine.indexer,
        )
        self._membership = Membership(core, self._engine.change_members)

    def _reopen_soon(self) -> None:
        self._core.synced = False
        self._engine.stop()
        self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        """A snapshot was fetched, or damage met: recover as after a restart, without one."""
        async with self._opening:
            if self._stopping:
                return
            try:
                await self._close()
                await self._open()
            except (OSError, StorageError) as error:
                self._fail(error)
                return
            self._peers.listen_for(self._engine)
            self._engine.start()

    async def stop(self) -> None:
        """Hand leadership over, take a checkpoint, close. Requests still waiting are refused or
        unknown.
        """
        self._stopping = True
        async with self._opening:
            if not self._engine.stopped:
                with contextlib.suppress(ReplicationError):
                    await self._hand_over(None, HAND_OVER_TIMEOUT_S)
                await self._checkpoint()
            self._engine.stop()
            await self._peers.close()
            self._wake_all()
            await self._close()

    async def _close(self) -> None:
        """Wait for the jobs under way and give up the data folder."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._threads.close)
        await loop.run_in_executor(None, self._recovered.close)

    async def _checkpoint(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda _: resolve(ended))
        self._engine.persistence.checkpoint(lambda: resolve(ended))
        await ended

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    def _announce(self) -> None:
        """The engine applied something."""
        self._peers.cluster_id = self._peers.cluster_id or self._machine.cluster_id
        self._wake()

    def stream_config(self, name: str) -> StreamConfig:
        """A stream's settings, for who asks often. UnknownStream."""
        return self._stream(name).config

    # ---- who and where

    @property
    def leader_id(self) -> str | None:
        return self._core.leader_id()

    @property
    def is_leader(self) -> bool:
        return self._core.is_leader()

    @property
    def leader_http(self) -> str | None:
        """Base URL of the leader's HTTP server; None if nobody leads or it did not tell yet."""
        leader = self.leader_id
        return self._http_of(leader) if leader is not None else None

    @property
    def ready(self) -> bool:
        """There is a leader and this node has caught up since it started."""
        return self._core.synced and self.leader_id is not None

    def _http_of(self, node: str) -> str | None:
        return self._config.http_url if node == self.id else self._peers.http_urls.get(node)

    @property
    def is_member(self) -> bool:
        """False while this node waits to be added, and when it was removed."""
        is_refused = self.leader_id is None and self._peers.is_stranger
        return self._core.members.is_listed and not is_refused

    @property
    def is_repairing(self) -> bool:
        """Damaged data was set aside, and its replacement is not complete yet."""
        return self._recovered.folder.is_repairing

    def status(self) -> ClusterStatus:
        return ClusterStatus(
            self._machine.cluster_id,
            self.id,
            self.leader_id,
            self.term,
            self._core.commit_index(),
            self.applied_index,
            [self._node_status(member) for member in self._core.members.newest.members],
        )

    def vitals(self) -> Vitals:
        """What there is to watch, also before this node has caught up."""
        engine, streams = self._engine, self._machine.streams.values()
        return Vitals(
            self._measures,
            self._recovered.wal.pending_bytes,
            engine.waiting_bytes(),
            engine.capacity.free_bytes,
            engine.capacity.is_short(),
            engine.capacity.is_full(),
            len(streams),
            sum(stream.segments.size_bytes for stream in streams),
            engine.repairs.count,
            engine.repairs.unmended_count,
            self._machine.recent.size_bytes,
            self._machine.recent.hits,
            self._machine.recent.misses,
            engine.compactor.is_passing,
            len(self._machine.compactions),
            len(self._machine.groups),
            self._machine.groups.lag_max(self._machine.streams),
        )

    def damaged(self, count_max: int) -> list[DamagedPlace]:
        """The first of the places that are being mended."""
        return self._engine.repairs.places(count_max)

    def _node_status(self, member: Member) -> NodeStatus:
        core, node, here = self._core, member.id, member.id == self.id
        match: int | None
        seen: float | None
        if here:
            state, match, seen = core.state_name(), self._recovered.wal.durable_index, 0.0
        else:
            follows = self.leader_id is not None and core.is_connected(node)
            state = "follower" if follows else "unknown"
            state = "leader" if node == self.leader_id else state
            match, seen = core.match_index(node), core.last_seen_s(node)
        return NodeStatus(
            node,
            self._http_of(node),
            f"{member.host}:{member.port}",
            member.role,
            state,
            match,
            here or core.is_connected(node),
            None if seen is None else int(seen * 1000),
        )

    # ---- writes, on the leader

    async def append(self, append: Append, *, timeout_s: float) -> Receipt:
        """Append one batch; returns once it is durable on a majority and applied here.

        Raises NotLeader, NoLeader, Throttled, BatchTooLarge and what apply refuses (certainly not
        written), or OutcomeUnknown (leadership lost or `timeout_s` over with the batch in the log).
        """
        if len(append.body) > BODY_BYTES_MAX:
            raise BatchTooLarge(f"a batch of {len(append.body)} bytes", limit_bytes=BODY_BYTES_MAX)
        command = self._batch_of(append, with_key=True)
        conditions = [Placed(append.stream, each, None) for each in append.conditions]
        receipt = await self._submit_if(command, len(append.body), conditions, timeout_s)
        return cast("Receipt", receipt)

    def submit_append(self, append: Append, settle: Settle, *, timeout_s: float) -> None:
        """Do what `append` does for who has no task to wait in; `append` is without conditions.

        Raises what refuses it at once. Else `settle` is called later, once, with the receipt or
        with the ReplicationError.
        """
        if len(append.body) > BODY_BYTES_MAX:
            raise BatchTooLarge(f"a batch of {len(append.body)} bytes", limit_bytes=BODY_BYTES_MAX)
        assert not append.conditions

        def settled(outcome: Any) -> None:
            timer.cancel()
            settle(outcome)

        pending = self._queue(self._batch_of(append, with_key=True), len(append.body), settled)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout_s, lambda: pending.settle(_late(pending)))

    async def create_stream(
        self, name: str, config: StreamConfig, *, timeout_s: float
    ) -> tuple[StreamInfo, bool]:
        """Create a stream; True if it is new, False if it existed with the same config.
        StreamExists otherwise.
        """
        command = CreateStream(name, dict(config), self._runtime.wall_ms())
        return cast("tuple[StreamInfo, bool]", await self._submit(command, 0, timeout_s))

    async def delete_stream(self, name: str, *, timeout_s: float) -> None:
        await self._submit(DeleteStream(name, self._runtime.wall_ms()), 0, timeout_s)

    async def alter_stream(
        self, name: str, changes: StreamConfig, *, timeout_s: float
    ) -> StreamInfo:
        """Change some of a stream's settings, from the next append on. UnknownStream."""
        command = AlterStream(name, dict(changes), self._runtime.wall_ms())
        return cast("StreamInfo", await self._submit(command, 0, timeout_s))

    async def trim(self, name: str, before: int, *, timeout_s: float) -> int:
        """Remove the records below `before`, for ever; returns the log start offset, which may have
        been above it already. UnknownStream, BeyondHighWatermark.
        """
        command = TrimStream(name, before, self._runtime.wall_ms())
        return cast("int", await self._submit(command, 0, timeout_s))

    async def register_producer(self, name: str | None, *, timeout_s: float) -> tuple[int, int]:
        """A producer's id and epoch; a name that is in use gets its next epoch, which fences the
        last.
        """
        command = RegisterProducer(name, self._runtime.wall_ms())
        return cast("tuple[int, int]", await self._submit(command, 0, timeout_s))

    def _knows_all(self) -> bool:
        return self.is_leader and self._machine.applied_term == self._core.term()

    async def _submit(
        self, command: Command, body_bytes: int, timeout_s: float, guard: Guard | None = None
    ) -> Any:
        settled = asyncio.get_running_loop().create_future()

        def settle(outcome: Any) -> None:
            if not settled.done():
                settled.set_result(outcome)

        pending = self._queue(command, body_bytes, settle, guard)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await settled
        except TimeoutError:
            raise _late(pending) from None
        finally:
            pending.abandon()
        if isinstance(outcome, ReplicationError):
            raise outcome
        return outcome

    def _queue(
        self, command: Command, body_bytes: int, settle: Settle, guard: Guard | None = None
    ) -> Pending:
        self._check_intake()
        if body_bytes and not self._engine.has_room():
            raise DiskFull(
                "too little room on the disks of a majority",
                free_bytes=self._engine.capacity.free_bytes,
            )
        pending = Pending(command, body_bytes, settle, guard)
        self._engine.submit(pending)
        return pending

    def _check_intake(self) -> None:
        if self._stopping:
            raise ShuttingDown("this node is shutting down")
        if not self.is_leader:
            leader = self.leader_id
            raise NotLeader(leader) if leader is not None else NoLeader("nobody leads right now")
        waiting = self._engine.waiting_bytes()
        if waiting > self._config.limits.uncommitted_bytes:
            raise Throttled("too many appends wait for their majority", waiting_bytes=waiting)

    # ---- members, on the leader

    async def add_member(
        self, node: str, address: Address, role: str, *, timeout_s: float
    ) -> NodeStatus:
        """Have `node` take part at `address` as `voter` or `learner`; returns once it does.

        Adds it, moves it, promotes or demotes it. Raises MembershipConflict, NotLeader, NoLeader,
        OutcomeUnknown (it goes on by itself).
        """
        self._check_intake()
        if node == self.id and role != VOTER:
            await self._give_way(timeout_s)
        await self._membership.add(node, address, as_voter=role == VOTER, timeout_s=timeout_s)
        return next(each for each in self.status().nodes if each.id == node)

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        """Take `node` out of the cluster; the leader hands over first and says NotLeader.

        Raises UnknownMember, MembershipConflict, NotLeader, NoLeader, OutcomeUnknown.
        """
        self._check_intake()
        self._membership.check_removal(node)
        if node == self.id:
            await self._give_way(timeout_s)
        await self._membership.remove(node, timeout_s=timeout_s)

    async def _give_way(self, timeout_s: float) -> None:
        """What changes the leader is for the next one to do."""
        raise NotLeader(await self._hand_over(None, min(timeout_s, HAND_OVER_TIMEOUT_S)))

    # ---- leadership

    async def wait_leader(self, timeout_s: float) -> str | None:
        """The leader's id, waiting up to `timeout_s` for one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.leader_id is None:
                    await asyncio.sleep(0.01)
        return self.leader_id

    async def transfer_leadership(self, node: str | None, *, timeout_s: float) -> str:
        """Hand leadership to `node`, or to the most advanced follower; returns the new leader once
        it leads.

        Raises NotLeader or NoLeader here, NotCaughtUp if `node` did not take over in time.
        """
        self._check_intake()
        if node == self.id:
            return node
        return await self._hand_over(node, timeout_s)

    async def _hand_over(self, node: str | None, timeout_s: float) -> str:
        if not self._engine.hand_over(node):
            raise NotCaughtUp("no connected node can take over leadership")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.is_leader or self.leader_id is None:
                    await asyncio.sleep(0.005)
        leader = self.leader_id
        if self.is_leader or leader is None:
            raise NotCaughtUp("nobody took over leadership in time")
        return leader

    async def read_barrier(self, *, timeout_s: float) -> int:
        """After this, local reads show all that was acknowledged before the call. NoLeader,
        NotCaughtUp.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                while (index := await self._ask_read_index()) is None:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NoLeader("no leader confirmed the read in time") from None
        await self.wait_applied(index, timeout_s=deadline - loop.time())
        return index

    async def _ask_read_index(self) -> int | None:
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def answered(index: int | None) -> None:
            if not answer.done():
                answer.set_result(index)

        self._engine.read_barrier(answered)
        return await answer


def _late(pending: Pending) -> ReplicationError:
    """What became of a command whose time is over."""
    if pending.proposed:
        return OutcomeUnknown("no majority answered in time; it may still commit")
    return Throttled("the leader did not get to it in time")
