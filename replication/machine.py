"""The replicated state machine: streams, producers, idempotency keys, groups, and the one function
that changes them.

`apply` runs on the event loop and only in memory: it decides (dedupe first, then limits, then
conditions), numbers the records, builds the batch and says whether it begins a segment. The batch's
bytes go to the stream's file later, in `StreamFiles`; until then they are served from `Recent`, and
after a crash the write-ahead log brings them back.

Deterministic: no clock, no randomness, no set order, no local setting takes part in a decision.
Total: whatever a committed entry holds, the answer is a result or a refusal, never an exception.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, TypeAlias

from ..storage.batch import build_batch
from . import policy
from .commands import (
    AcquireLease,
    AlterStream,
    AppendBatch,
    Command,
    CommitOffset,
    CompactedRun,
    CompactStream,
    CreateIndex,
    CreateStream,
    DeleteGroup,
    DeleteStream,
    DropIndex,
    InitCluster,
    RegisterProducer,
    ReleaseLease,
    Transact,
    TrimStream,
    decode_commands,
)
from .dedupe import Appended, ProducerTable
from .errors import (
    BeyondHighWatermark,
    InvalidRequest,
    Refused,
    StreamExists,
    StreamImmutable,
    TooManyIndexes,
    UnknownIndex,
    unknown_stream,
)
from .groups import GroupTable, commit_receipt
from .indexes import INDEXES_MAX, IndexDefinition
from .members import Config
from .recent import Recent
from .stream import Stream, describe
from .transactions import Transacted, TransactionTable, Trial
from .types import CommitReceipt, LeaseGrant, Receipt, StreamInfo, TransactionReceipt
from .unwritten import Unwritten

PendingRun: TypeAlias = tuple[int, CompactedRun]
"""And the stream's id."""
COMPACTIONS_MAX = 64
"""With more to do, apply waits."""


class StateMachine:
    """All of the replicated state. What has to happen outside of memory waits in its attributes."""

    def __init__(self, recent: Recent, unwritten_bytes_max: int) -> None:
        self.applied_index = 0
        self.applied_term = 0
        self.log_time = 0
        """Largest timestamp applied, ms since the epoch."""
        self.cluster_id: str | None = None
        self.members: Config | None = None
        """As of the applied index; None before the log said anything of members."""
        self.members_index = 0
        self.next_stream_id = 1
        self.next_index_id = 1
        self.streams: dict[str, Stream] = {}
        self.producers = ProducerTable()
        self.groups = GroupTable()
        self.transactions = TransactionTable()
        self.recent = recent
        self.unwritten: defaultdict[int, Unwritten] = defaultdict(Unwritten)
        """Applied batches and trims on their way to the streams' files, by stream id."""
        self.unwritten_bytes = 0
        self.created: list[Stream] = []
        self.deleted: list[int] = []
        """Streams whose files are still there, by id."""
        self.dropped = False
        """Segments were trimmed away whose files are still there."""
        self.compactions: deque[PendingRun] = deque()
        """Agreed upon, and not yet done to the streams' files, in their order."""
        self.index_changes = 0
        """Counts up whenever another index, or another stream, is there."""
        self.changed: set[str] = set()
        """Streams that grew or went since the engine last woke their readers."""
        self._unwritten_bytes_max = unwritten_bytes_max

    def ready(self) -> bool:
        is_behind = len(self.compactions) >= COMPACTIONS_MAX
        return self.unwritten_bytes < self._unwritten_bytes_max and not is_behind

    def apply(self, index: int, term: int, command: memoryview | None) -> list[Any]:
        """Apply one committed entry and return one result or refusal per command."""
        results = []
        for item in decode_commands(command) if command is not None else ():
            self.log_time = max(self.log_time, item.timestamp)
            results.append(self._HANDLERS[type(item)](self, item, index, term))
        self.applied_index, self.applied_term = index, term
        return results

    def settle(self, index: int, config: Config) -> None:
        """The entry at `index`, which is applied next, names the cluster's members."""
        self.members, self.members_index = config, index

    def _append(self, command: AppendBatch, index: int, term: int) -> Receipt | Refused:
        stream = self.streams.get(command.stream)
        if stream is None:
            return unknown_stream(command.stream)
        repeat = self._find_repeat(stream, command)
        if isinstance(repeat, Refused):
            return repeat
        if repeat is not None:
            return receipt(stream.name, repeat, duplicate=True)
        refusal = stream.refusal_of(command, stream.next_offset)
        if refusal is not None:
            return refusal
        appended = self._write(stream, command, index, term)
        if command.key is not None:
            stream.keys.remember(command.key, appended, self.log_time)
        return receipt(stream.name, appended, duplicate=False)

    def _find_repeat(self, stream: Stream, command: AppendBatch) -> Appended | Refused | None:
        if command.key is not None:
            known = stream.keys.repeat(command.key, command.digest, self.log_time)
            if known is not None:
                return known
        if command.producer is not None:
            return self.producers.repeat(command.producer, stream.id, command.digest)
        return None

    def is_repeat(self, command: AppendBatch | Transact) -> bool:
        """Would it be answered, whatever its conditions are, by what was done before?"""
        if isinstance(command, Transact):
            return self.transactions.repeat(command, self.log_time) is not None
        stream = self.streams.get(command.stream)
        return stream is not None and self._find_repeat(stream, command) is not None

    def _write(self, stream: Stream, command: AppendBatch, index: int, term: int) -> Appended:
        timestamp = max(command.timestamp, stream.last_timestamp or 0)
        newest = command.max_timestamp
        producer_id, epoch, sequence = command.producer or (None, 0, 0)
        batch = build_batch(
            command.body,
            count=command.count,
            base_offset=stream.next_offset,
            timestamp=timestamp,
            max_timestamp=timestamp if newest is None else max(timestamp, newest),
            term=term,
            index=index,
            producer_id=producer_id,
            producer_epoch=epoch,
            sequence=sequence,
            chain=stream.chain,
            codec=command.codec,
        )
        begins_segment = stream.add(batch)
        if begins_segment:
            self._drop(stream)
        self.recent.add(stream.id, batch)
        self.unwritten[stream.id].add(batch, begins_segment=begins_segment)
        self.unwritten_bytes += batch.size
        self.changed.add(stream.name)
        appended = Appended(batch.base_offset, batch.count, timestamp, term, index, command.digest)
        if command.producer is not None:
            self.producers.remember(command.producer, stream.id, appended, self.log_time)
        return appended

    def _transact(self, command: Transact, index: int, term: int) -> TransactionReceipt | Refused:
        known = self.transactions.repeat(command, self.log_time)
        if isinstance(known, Refused):
            return known
        if known is not None:
            return transaction_receipt(command, known, duplicate=True)
        self.groups.tick(command.timestamp)
        refusal = Trial(self.streams, self.producers, self.groups).refusal_of(command)
        if refusal is not None:
            return refusal
        appended = [
            self._write(self.streams[part.stream], part, index, term) for part in command.appends
        ]
        committed = [
            self.groups.commit(part, self.streams[part.stream], index, term)
            for part in command.commits
        ]
        done = Transacted(
            self.log_time,
            term,
            index,
            command.digest,
            tuple(each.first_offset for each in appended),
            tuple(each.timestamp for each in appended),
            tuple(each.high_watermark for each in committed),
        )
        if command.key is not None:
            self.transactions.remember(command.key, done)
        return transaction_receipt(command, done, duplicate=False)

    def _commit(self, command: CommitOffset, index: int, term: int) -> CommitReceipt | Refused:
        stream = self.streams.get(command.stream)
        if stream is None:
            return unknown_stream(command.stream)
        self.groups.tick(command.timestamp)
        refusal = self.groups.refusal_of(command, stream.next_offset)
        return refusal or self.groups.commit(command, stream, index, term)

    def _acquire(self, command: AcquireLease, index: int, term: int) -> LeaseGrant | Refused:
        stream = self.streams.get(command.stream)
        if stream is None:
            return unknown_stream(command.stream)
        self.groups.tick(command.timestamp)
        return self.groups.acquire(command, stream, index, term)

    def _release(self, command: ReleaseLease, index: int, term: int) -> Refused | None:
        if command.stream not in self.streams:
            return unknown_stream(command.stream)
        self.groups.tick(command.timestamp)
        return self.groups.release(command)

    def _delete_group(self, command: DeleteGroup, index: int, term: int) -> Refused | None:
        self.groups.tick(command.timestamp)
        return self.groups.delete(command.name)

    def _create_stream(
        self, command: CreateStream, index: int, term: int
    ) -> tuple[StreamInfo, bool] | Refused:
        stream = self.streams.get(command.name)
        if stream is not None:
            if stream.config == command.config:
                return describe(stream), False
            return StreamExists(
                f"stream {command.name} exists with another config", stream=command.name
            )
        stream = Stream(self.next_stream_id, command.name, command.config)
        self.next_stream_id += 1
        self.streams[command.name] = stream
        self.created.append(stream)
        self.index_changes += 1
        return describe(stream), True

    def _delete_stream(self, command: DeleteStream, index: int, term: int) -> Refused | None:
        stream = self.streams.get(command.name)
        if stream is None:
            return unknown_stream(command.name)
        if policy.is_immutable(stream.config):
            return StreamImmutable(f"stream {command.name} is immutable: it is never deleted")
        del self.streams[command.name]
        self.compactions = deque(each for each in self.compactions if each[0] != stream.id)
        self.producers.forget_stream(stream.id)
        self.groups.forget_stream(stream.name)
        self.recent.forget_stream(stream.id)
        self.unwritten_bytes -= self.unwritten.pop(stream.id, Unwritten()).size_bytes
        self.deleted.append(stream.id)
        self.index_changes += 1
        self.changed.add(stream.name)
        return None

    def _trim_stream(self, command: TrimStream, index: int, term: int) -> int | Refused:
        stream = self.streams.get(command.name)
        if stream is None or command.stream_id not in (None, stream.id):
            return unknown_stream(command.name)
        if policy.is_immutable(stream.config) and command.before > stream.log_start_offset:
            return StreamImmutable(f"stream {command.name} is immutable: it keeps its records")
        if command.before > stream.next_offset:
            return BeyondHighWatermark(
                f"offset {command.before} does not exist yet",
                log_start_offset=stream.log_start_offset,
                high_watermark=stream.next_offset,
            )
        if command.before > stream.log_start_offset:
            stream.log_start_offset = command.before
            self.unwritten[stream.id].log_start_offset = command.before
            self._drop(stream)
        return stream.log_start_offset

    def _drop(self, stream: Stream) -> None:
        if stream.segments.drop_below(stream.log_start_offset):
            self.dropped = True

    def _alter_stream(self, command: AlterStream, index: int, term: int) -> StreamInfo | Refused:
        stream = self.streams.get(command.name)
        if stream is None:
            return unknown_stream(command.name)
        kept = policy.forbidden_change(stream.config, command.changes)
        if kept is not None:
            detail = f"stream {command.name} is immutable: {kept} stays"
            return StreamImmutable(detail, field=f"config.{kept}")
        wrong = policy.contradiction({**stream.config, **command.changes})
        if wrong is not None:
            return InvalidRequest(f"{wrong[0]}: {wrong[1]}", field=f"config.{wrong[0]}")
        stream.alter(command.changes, self.log_time)
        return describe(stream)

    def _compact(self, command: CompactStream, index: int, term: int) -> bool | Refused:
        """True if the stream's segments were those that the leader looked at, as they still are in
        all but rare cases. If not, nothing happens: the leader looks again.
        """
        stream = self.streams.get(command.name)
        if stream is None or command.stream_id != stream.id:
            return unknown_stream(command.name)
        if not policy.compacts(stream.config) or policy.is_immutable(stream.config):
            return False
        if command.run is not None:
            if not stream.segments.replace(command.run):
                return False
            self.compactions.append((stream.id, command.run))
            self._drop(stream)
        stream.cleaned(command.cleaned_until, self.log_time)
        return True

    def compacted(self, stream_id: int, done: Callable[[CompactedRun], bool]) -> None:
        """Some of a stream's `compactions` are done. What was trimmed since can leave the files."""
        left: deque[tuple[int, CompactedRun]] = deque()
        end_offset = 0
        for of, run in self.compactions:
            if of == stream_id and done(run):
                end_offset = max(end_offset, run.end_offset)
            else:
                left.append((of, run))
        self.compactions = left
        self.recent.swapped(stream_id, end_offset)
        for stream in self.streams.values():
            if stream.id == stream_id:
                self.unwritten[stream_id].log_start_offset = stream.log_start_offset
        self.dropped = True

    def _create_index(
        self, command: CreateIndex, index: int, term: int
    ) -> tuple[IndexDefinition, bool] | Refused:
        """The definition, and whether there was none of that name."""
        stream = self.streams.get(command.stream)
        if stream is None:
            return unknown_stream(command.stream)
        known = stream.indexes.get(command.name)
        if known is not None and (known.kind, known.on) == (command.kind, command.on):
            return known, False
        if known is None and len(stream.indexes) >= INDEXES_MAX:
            return TooManyIndexes(
                f"stream {command.stream} has {INDEXES_MAX} indexes, the most it may have",
                field="index",
            )
        definition = IndexDefinition(self.next_index_id, command.kind, command.on)
        self.next_index_id += 1
        stream.indexes[command.name] = definition
        self.index_changes += 1
        return definition, known is None

    def _drop_index(self, command: DropIndex, index: int, term: int) -> Refused | None:
        stream = self.streams.get(command.stream)
        if stream is None:
            return unknown_stream(command.stream)
        if stream.indexes.pop(command.name, None) is None:
            return unknown_index(command.stream, command.name)
        self.index_changes += 1
        return None

    def _register(self, command: RegisterProducer, index: int, term: int) -> tuple[int, int]:
        return self.producers.register(command.name, self.log_time)

    def _init_cluster(self, command: InitCluster, index: int, term: int) -> str:
        if self.cluster_id is None:
            self.cluster_id = command.cluster_id
        return self.cluster_id

    def take_unwritten(self) -> dict[int, Unwritten]:
        """Hand over what waits for the files; `written` counts it off."""
        taken, self.unwritten = dict(self.unwritten), defaultdict(Unwritten)
        return taken

    def written(self, taken: dict[int, Unwritten]) -> None:
        """The streams' files hold these batches."""
        for stream_id, written in taken.items():
            self.unwritten_bytes -= written.size_bytes
            if written.end_offset is not None:
                self.recent.written(stream_id, written.end_offset)

    _HANDLERS: dict[type[Command], Callable[..., Any]] = {  # noqa: RUF012
        AppendBatch: _append,
        CreateStream: _create_stream,
        DeleteStream: _delete_stream,
        RegisterProducer: _register,
        InitCluster: _init_cluster,
        TrimStream: _trim_stream,
        AlterStream: _alter_stream,
        CommitOffset: _commit,
        AcquireLease: _acquire,
        ReleaseLease: _release,
        DeleteGroup: _delete_group,
        Transact: _transact,
        CompactStream: _compact,
        CreateIndex: _create_index,
        DropIndex: _drop_index,
    }


def unknown_index(stream: str, name: str) -> UnknownIndex:
    return UnknownIndex(f"stream {stream} has no index {name}", stream=stream, index=name)


def receipt(stream: str, appended: Appended, *, duplicate: bool) -> Receipt:
    return Receipt(
        stream,
        appended.first_offset,
        appended.first_offset + appended.count - 1,
        appended.count,
        appended.timestamp,
        appended.term,
        appended.index,
        duplicate,
    )


def transaction_receipt(
    command: Transact, done: Transacted, *, duplicate: bool
) -> TransactionReceipt:
    """What was done under a command with the same digest: so with the same streams and counts."""
    term, index = done.term, done.index
    return TransactionReceipt(
        [
            receipt(
                part.stream,
                Appended(first_offset, part.count, timestamp, term, index, part.digest),
                duplicate=duplicate,
            )
            for part, first_offset, timestamp in zip(
                command.appends, done.first_offsets, done.timestamps, strict=True
            )
        ],
        [
            commit_receipt(part, high_watermark, index, term)
            for part, high_watermark in zip(command.commits, done.high_watermarks, strict=True)
        ],
        term,
        index,
        duplicate,
    )
