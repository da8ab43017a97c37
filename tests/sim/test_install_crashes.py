"""A snapshot's installation, ended at every single change it makes to the disk."""

from __future__ import annotations

from contextlib import suppress

import pytest

from cute_logger.replication.install import BadSnapshot, Held, Piece, plan
from cute_logger.replication.recovery import recover
from cute_logger.replication.sim.disk import Stopped
from cute_logger.storage.log import LogState
from support.installs import CONFIG, HERE, THERE, fetched, is_whole


def changes_in_all() -> int:
    disk, staging, pieces, held = fetched(0)
    before = disk.changes
    staging.commit(pieces, held)
    disk.end_process()
    recover(CONFIG, disk)
    return disk.changes - before


@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_the_old_state_or_the_new_one_after_a_stop_at_any_change(power: bool) -> None:
    total = changes_in_all()
    assert total > 20
    outcomes = set()
    for change in range(total + 1):
        disk, staging, pieces, held = fetched(change)
        disk.stop_after = change
        is_committed = False
        try:
            staging.commit(pieces, held)
            is_committed = True
            left = disk.stop_after
            disk.end_process()
            disk.stop_after = left
            recover(CONFIG, disk)
        except Stopped:
            pass
        if power:
            disk.lose_power()
        disk.end_process()
        node = recover(CONFIG, disk)
        index = node.machine.applied_index
        assert is_whole(node, index), f"stopped at change {change}"
        assert index == THERE or not is_committed, f"stopped at change {change}"
        outcomes.add(index)
    assert outcomes == {HERE, THERE}


def test_what_was_put_in_place_survives_a_power_loss_after_a_start_that_was_cut_short() -> None:
    """The process that goes on finds files in their places whose names nobody has synced."""
    for change in range(changes_in_all()):
        for seed in range(5):
            disk, staging, pieces, held = fetched(seed)
            staging.commit(pieces, held)
            disk.end_process()
            disk.stop_after = change
            with suppress(Stopped):
                recover(CONFIG, disk)
            disk.end_process()
            recover(CONFIG, disk)
            disk.lose_power()
            assert is_whole(recover(CONFIG, disk), THERE), f"stopped at change {change}"


def test_a_piece_of_an_earlier_fetch_that_is_not_wanted_any_more_is_not_installed() -> None:
    """The node caught up by the log meanwhile: it has the segment, and a part of it was staged."""
    disk, staging, pieces, held = fetched(0)
    base_offset, size = held[1].state.segments[0]
    staging.write_piece(Piece(1, base_offset, 0, size), 0, b"torn")
    staging.commit(pieces, held)
    disk.lose_power()
    assert is_whole(recover(CONFIG, disk), THERE)


def test_a_snapshot_that_is_given_up_although_it_was_complete_leaves_the_old_state() -> None:
    """Another offer came, or the log would do after all, while the last one was being verified."""
    disk, staging, pieces, held = fetched(0)
    staging.commit(pieces, held)
    before = disk.changes
    staging.discard()
    changes = disk.changes - before
    disk.end_process()
    assert is_whole(recover(CONFIG, disk), HERE)
    for change in range(changes):
        disk, staging, pieces, held = fetched(change)
        staging.commit(pieces, held)
        disk.stop_after = change
        with pytest.raises(Stopped):
            staging.discard()
        disk.lose_power()
        node = recover(CONFIG, disk)
        assert is_whole(node, node.machine.applied_index), f"stopped at change {change}"


def test_a_fetch_that_begins_anew_does_not_write_into_one_that_is_complete() -> None:
    disk, staging, pieces, held = fetched(0)
    staging.commit(pieces, held)
    staging.begin()
    staging.write_piece(pieces[-1], pieces[-1].start, b"of another snapshot")
    disk.end_process()
    assert is_whole(recover(CONFIG, disk), HERE)


def test_only_what_is_missing_is_fetched() -> None:
    _, _, pieces, held = fetched(0)
    here = held[1].state.segments[-1]
    assert pieces[0].start == here[1]
    assert [piece.start for piece in pieces[1:]] == [0] * (len(pieces) - 1)
    assert len(pieces) > 2


def test_a_flipped_bit_is_noticed_and_nothing_is_kept() -> None:
    for number in range(3):
        disk, staging, pieces, held = fetched(0)
        piece = pieces[number]
        staging.write_piece(piece, piece.start + 700, b"\xff")
        with pytest.raises(BadSnapshot):
            staging.commit(pieces, held)
        assert staging.staged_bytes(piece) == 0
        disk.end_process()
        assert is_whole(recover(CONFIG, disk), HERE)


def test_bytes_that_do_not_follow_are_noticed() -> None:
    """Another log's bytes, right by themselves: the chain of digests does not fit."""
    _, staging, pieces, held = fetched(0)
    strange = {1: Held(held[1].state, bytes(15) + b"\1")}
    with pytest.raises(BadSnapshot, match="does not follow"):
        staging.commit(pieces, strange)


def test_a_log_that_disagrees_is_fetched_whole() -> None:
    wanted = {1: LogState(0, 100, ((0, 500), (40, 300)))}
    longer = {1: Held(LogState(0, 60, ((0, 900),)), b"")}
    assert plan(wanted, longer) == [Piece(1, 0, 0, 500), Piece(1, 40, 0, 300)]
