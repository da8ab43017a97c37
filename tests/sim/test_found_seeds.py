"""Seeds that found a bug. A later change may turn a seed into another run, as it has the first ones
(see MUTATIONS.md for what notices their bugs now): its bug has a test of its own as well, named
here.
"""

from __future__ import annotations

import pytest

from cute_logger.replication.sim.runner import simulate

FOUND = {
    ("rot", 6000144): (
        "A segment fetched from another node was put in the place of segments of which this one's"
        " files did not have the last yet: they lag behind the list."
    ),
    ("evil", 2000): (
        "An answer to what the former snapshot's fetch had asked was taken for one to the next's:"
        " test_snapshot_rules.py, an_answer_for_the_former_snapshot_is_not_taken."
    ),
    ("evil", 3): (
        "After a failed fsync the log's end was read from the page cache and trusted, and gone at"
        " the next power loss: test_disk.py, test_the_log_writes_again_what_a_failed_fsync_lost."
    ),
    ("network", 10024): (
        "A piece that an earlier fetch had staged was installed, unverified, over a segment that"
        " the node had by then: test_install_crashes.py, test_a_piece_of_an_earlier_fetch…"
    ),
    ("members", 709): (
        "A follower with an uncommitted removal turned away the leader that would have truncated"
        " it: test_introductions.py."
    ),
    ("members", 7): (
        "A segment whose name nobody had synced, since the start that had put it in its place was"
        " cut short: test_install_crashes.py, test_what_was_put_in_place_survives…"
    ),
    ("evil", 5019): (
        "A stream's folder was made by a process that ended before its name was durable, and the"
        " next one took it for durable: test_stream_files.py."
    ),
}


@pytest.mark.parametrize(("mode", "seed"), FOUND, ids=[f"{mode}-{seed}" for mode, seed in FOUND])
def test_the_bug_stays_away(mode: str, seed: int) -> None:
    assert not simulate(mode, seed).violations, FOUND[mode, seed]
