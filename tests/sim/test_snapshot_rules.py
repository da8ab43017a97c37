"""Rules of snapshots and of the log behind them that chance tests too rarely, each with a bug that
breaks it: the rule holds, and does not hold with the bug.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future
from random import Random
from typing import Any

import pytest

from cute_logger.replication import install
from cute_logger.replication.catchup import Catchup, Steps
from cute_logger.replication.commands import TrimStream, encode_commands
from cute_logger.replication.config import Limits
from cute_logger.replication.install import BadSnapshot, Held, Piece, Staging
from cute_logger.replication.jobs import Jobs
from cute_logger.replication.journal import RaftJournal
from cute_logger.replication.measures import Measures
from cute_logger.replication.messages import SnapshotData, SnapshotOffer, SnapshotRead
from cute_logger.replication.persistence import Persistence
from cute_logger.replication.recovery import Recovered, recover
from cute_logger.replication.sim.disk import SimDisk, Stopped
from cute_logger.storage import wal_recovery
from cute_logger.storage.errors import StorageError
from cute_logger.storage.wal import Wal
from support.in_turn import AtOnce, InTurn
from support.installs import (
    CONFIG,
    THERE,
    catchup_of,
    fetch,
    fetched,
    grown,
    is_whole,
    payload,
)
from support.mutations.registry import Break
from support.mutations.snapshots import (
    all_that_is_applied_is_forgotten,
    put_in_place_by_half,
    trimmed_files_go_first,
)

Rule = Callable[[], bool]
PINNED = 12


def a_stop_in_the_middle_leaves_the_old_state_or_the_new_one() -> bool:
    for change in range(60):
        disk, staging, pieces, held = fetched(change)
        staging.commit(pieces, held)
        disk.end_process()
        disk.stop_after = change
        try:
            recover(CONFIG, disk)
        except Stopped:
            disk.end_process()
            try:
                if not is_whole(recover(CONFIG, disk), THERE):
                    return False
            except StorageError:
                return False
        else:
            return change > 10
    raise AssertionError("an installation of so many changes")


def a_flipped_bit_is_noticed() -> bool:
    _, staging, pieces, held = fetched(0)
    staging.write_piece(pieces[1], pieces[1].start + 700, b"\xff")
    try:
        staging.commit(pieces, held)
    except BadSnapshot:
        return True
    return False


def a_log_that_does_not_follow_is_noticed() -> bool:
    _, staging, pieces, held = fetched(0)
    try:
        staging.commit(pieces, {1: Held(held[1].state, bytes(15) + b"\1")})
    except BadSnapshot:
        return True
    return False


def a_piece_of_an_earlier_fetch_is_not_installed() -> bool:
    disk, staging, pieces, held = fetched(0)
    base_offset, size = held[1].state.segments[0]
    staging.write_piece(Piece(1, base_offset, 0, size), 0, b"torn")
    staging.commit(pieces, held)
    disk.end_process()
    return is_whole(recover(CONFIG, disk), THERE)


def persistence_of(
    node: Recovered, wal: Wal, disk: SimDisk, runtime: AtOnce | None = None
) -> Persistence:
    return Persistence(
        jobs=Jobs(runtime or AtOnce(), lambda step, *args: step(*args)),
        machine=node.machine,
        journal=RaftJournal(wal),
        stream_files=node.stream_files,
        folder=node.folder,
        files=disk,
        limits=Limits(wal_retain_bytes=1),
        measures=Measures(),
    )


def trimmed_files_stay_until_a_checkpoint_forgets_them() -> bool:
    for change in range(60):
        disk, node = grown(change, THERE)
        trim = encode_commands([TrimStream("s", THERE - 5, 1)])
        node.machine.apply(THERE + 1, 1, memoryview(trim))
        persistence = persistence_of(node, node.wal, disk)
        disk.stop_after = change
        try:
            persistence.checkpoint(lambda: None)
        except Stopped:
            disk.end_process()
            if recover(CONFIG, disk).stream_files.found_damaged:
                return False
        else:
            disk.stop_after = None
            first, *_ = disk.listdir(node.folder.stream_folder(1))
            assert not first.startswith("0" * 20), "nothing was trimmed"
            return True
    raise AssertionError("a checkpoint of so many changes")


def append(wal: Wal, node: Recovered, first: int, last: int) -> None:
    """Write entries to the log and apply them."""
    for index in range(first, last + 1):
        wal.append(index, 1, bytes(payload(index)))
        node.machine.apply(index, 1, payload(index))
        flush = wal.begin_flush()
        assert flush is not None
        flush.run()
        wal.end_flush(flush)


def the_log_behind_a_snapshot_that_is_fetched_stays() -> bool:
    disk, node = grown(0, 0)
    wal = Wal.open("/data/other", files=disk, segment_bytes_max=4 << 10)
    persistence = persistence_of(node, wal, disk)
    append(wal, node, 1, THERE)
    persistence.poll(PINNED, is_synced=True)
    persistence.checkpoint(lambda: None)
    assert wal.first_index > 1, "nothing was dropped at all"
    return wal.first_index <= PINNED + 1


def the_log_behind_the_checkpoint_stays() -> bool:
    disk, node = grown(0, 0)
    wal = Wal.open("/data/other", files=disk, segment_bytes_max=4 << 10)
    runtime = InTurn()
    persistence = persistence_of(node, wal, disk, runtime)
    append(wal, node, 1, THERE)
    persistence.checkpoint(lambda: None)
    append(wal, node, THERE + 1, 2 * THERE)
    runtime.run_jobs()
    assert wal.first_index > 1, "nothing was dropped at all"
    return wal.first_index <= THERE + 1


def what_a_failed_fsync_lost_is_written_again() -> bool:
    disk = SimDisk(Random(1))
    disk.is_usable = True
    wal = Wal.open("/wal", files=disk)
    wal.append(1, 1, b"x")
    flush = wal.begin_flush()
    assert flush is not None
    disk.loses_on_failure, disk.failure_errno, disk.fail_after = True, errno.EIO, 1
    with pytest.raises(OSError, match="Input/output error"):
        flush.run()
    disk.end_process()
    index = Wal.open("/wal", files=disk).last_index
    return Wal.open("/wal", files=disk.synced_only(without="")).last_index == index == 1


def what_a_failed_fsync_lost_of_a_piece_is_written_again() -> bool:
    """The process after it, which takes the piece for whole, must not believe the page cache."""
    disk, staging, pieces, _ = fetched(0)
    piece = pieces[1]
    whole = staging.staged_bytes(piece)
    [(path, file)] = [each for each in disk.files_below("/data") if each[0].endswith(piece.name)]
    data = file.read(0, whole)
    disk.remove(path)
    staging.write_piece(piece, piece.start, data[:1000])
    disk.loses_on_failure, disk.failure_errno, disk.fail_after = True, errno.EIO, 1
    with pytest.raises(OSError, match="Input/output error"):
        staging.write_piece(piece, piece.start + 1000, data[1000:])
    disk.end_process()
    node = recover(CONFIG, disk)
    assert Staging(disk, node.folder).staged_bytes(piece) == whole
    fetch(disk, node)
    disk.end_process()
    recover(CONFIG, disk)
    disk.lose_power()
    return is_whole(recover(CONFIG, disk), THERE)


def a_disk_error_in_a_fetch_that_was_given_up_is_not_overlooked() -> bool:
    """Only the last write of a process may be in doubt, for the next one writes no more again."""
    disk, node = grown(0, 10)
    sent: list[SnapshotRead] = []
    runtime = InTurn()
    catchup = catchup_of(disk, node, runtime, sent.append)
    catchup.offered("n2", SnapshotOffer(1, 1, 50, 1, size=100))
    runtime.run_jobs()
    catchup.arrived("n2", SnapshotData(sent[-1].request, b"f" * 100))
    catchup.offered("n2", SnapshotOffer(1, 2, 60, 1, size=200))
    disk.failure_errno, disk.fail_after = errno.EIO, 0
    try:
        runtime.run_jobs()
    except OSError:
        return True
    return False


def an_answer_for_the_former_snapshot_is_not_taken() -> bool:
    disk, node = grown(0, 10)
    sent: list[SnapshotRead] = []
    runtime = InTurn()
    catchup = catchup_of(disk, node, runtime, sent.append)
    catchup.offered("n2", SnapshotOffer(1, 1, 50, 1, size=100))
    runtime.run_jobs()
    catchup.offered("n2", SnapshotOffer(1, 2, 60, 1, size=200))
    catchup.arrived("n2", SnapshotData(sent[-1].request, b"f" * 100))
    runtime.run_jobs()
    asked = [(read.index, read.position) for read in sent]
    return asked == [(50, 0), (60, 0)]


def _questions_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Catchup, "_give_up", lambda self: None)


def _not_verified(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Staging, "_verify", lambda self, pieces, held: None)


def _others_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Staging, "_remove_others", lambda self, pieces: None)


def _pin_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Persistence.poll

    def poll(self: Persistence, pinned_index: int | None, *, is_synced: bool) -> None:
        original(self, None, is_synced=is_synced)

    patch.setattr(Persistence, "poll", poll)


def _not_written_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wal_recovery, "write_again", lambda file, start, end: None)


def _piece_not_written_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(install, "write_again", lambda file, start, end: None)


def _given_up_and_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Catchup._done

    def done(self: Catchup, steps: Steps, done: Future[Any]) -> None:
        if steps is self._steps:
            original(self, steps, done)

    patch.setattr(Catchup, "_done", done)


RULES: list[tuple[Rule, Break]] = [
    (a_stop_in_the_middle_leaves_the_old_state_or_the_new_one, put_in_place_by_half),
    (a_flipped_bit_is_noticed, _not_verified),
    (a_log_that_does_not_follow_is_noticed, _not_verified),
    (a_piece_of_an_earlier_fetch_is_not_installed, _others_stay),
    (an_answer_for_the_former_snapshot_is_not_taken, _questions_kept),
    (the_log_behind_a_snapshot_that_is_fetched_stays, _pin_forgotten),
    (the_log_behind_the_checkpoint_stays, all_that_is_applied_is_forgotten),
    (trimmed_files_stay_until_a_checkpoint_forgets_them, trimmed_files_go_first),
    (what_a_failed_fsync_lost_is_written_again, _not_written_again),
    (what_a_failed_fsync_lost_of_a_piece_is_written_again, _piece_not_written_again),
    (a_disk_error_in_a_fetch_that_was_given_up_is_not_overlooked, _given_up_and_forgotten),
]
NAMES = [rule.__name__ for rule, _ in RULES]


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=NAMES)
def test_holds(rule: Rule) -> None:
    assert rule()


@pytest.mark.parametrize(("rule", "break_it"), RULES, ids=NAMES)
def test_is_noticed_when_broken(
    rule: Rule, break_it: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    try:
        kept = rule()
    except (StorageError, TypeError):
        kept = False
    assert not kept
