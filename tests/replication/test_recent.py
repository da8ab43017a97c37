"""Batches in memory: what is found there, and what stays when there is no room for all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cute_logger.replication.recent import Recent
from cute_logger.storage.batch import Batch, build_batch
from cute_logger.storage.record import Record, encode_records

STREAM = 7


def make(base_offset: int, count: int = 1, value_bytes: int = 100) -> Batch:
    return build_batch(
        encode_records([Record(bytes(value_bytes))] * count),
        count=count,
        base_offset=base_offset,
        timestamp=0,
        max_timestamp=0,
    )


SIZE = make(0).size


def offsets(batches: list[Batch] | None) -> list[int] | None:
    return None if batches is None else [batch.base_offset for batch in batches]


def test_what_was_read_is_found_across_reads_that_follow_each_other():
    recent = Recent(100 * SIZE)
    recent.keep(STREAM, [make(0), make(1)], recent.swaps)
    recent.keep(STREAM, [make(2), make(3)], recent.swaps)
    assert offsets(recent.read(STREAM, 1, 2 * SIZE)) == [1, 2]
    assert offsets(recent.read(STREAM, 0, 4 * SIZE)) == [0, 1, 2, 3]
    assert recent.read(STREAM + 1, 0, SIZE) is None


def test_a_short_rest_is_left_to_the_file():
    recent = Recent(100 * SIZE)
    recent.keep(STREAM, [make(0), make(1)], recent.swaps)
    assert recent.read(STREAM, 1, 10 * SIZE) is None
    assert offsets(recent.read(STREAM, 1, SIZE)) == [1]


def test_a_batch_is_found_by_any_of_its_offsets():
    recent = Recent(100 * SIZE)
    recent.keep(STREAM, [make(10, count=5)], recent.swaps)
    assert offsets(recent.read(STREAM, 14, 1)) == [10]
    assert recent.read(STREAM, 15, 1) is None
    assert recent.read(STREAM, 9, 1) is None


def test_what_was_used_longest_ago_goes_first():
    recent = Recent(16 * SIZE)
    for base_offset in range(16):
        recent.keep(STREAM, [make(base_offset)], recent.swaps)
    assert offsets(recent.read(STREAM, 0, 1)) == [0]
    recent.keep(STREAM, [make(20)], recent.swaps)
    assert recent.read(STREAM, 1, 1) is None
    assert offsets(recent.read(STREAM, 0, 1)) == [0]


def test_new_batches_take_the_room_down_to_half():
    recent = Recent(16 * SIZE)
    for base_offset in range(16):
        recent.keep(STREAM, [make(base_offset)], recent.swaps)
    for base_offset in range(100, 116):
        recent.add(STREAM, make(base_offset))
        recent.written(STREAM, base_offset + 1)
    assert [recent.read(STREAM, offset, 1) is not None for offset in (0, 7, 8, 15)] == [
        False,
        False,
        True,
        True,
    ]
    assert [recent.read(STREAM, offset, 1) is not None for offset in (107, 108, 115)] == [
        False,
        True,
        True,
    ]


def test_what_no_file_holds_is_never_dropped():
    recent = Recent(4 * SIZE)
    for base_offset in range(10):
        recent.add(STREAM, make(base_offset))
        recent.keep(STREAM + 1, [make(base_offset)], recent.swaps)
    assert offsets(recent.read(STREAM, 0, 100 * SIZE)) == list(range(10))
    assert recent.size_bytes == 10 * SIZE


def test_one_large_read_does_not_push_out_the_rest():
    recent = Recent(16 * SIZE)
    recent.keep(STREAM, [make(0)], recent.swaps)
    recent.keep(STREAM, [make(base_offset) for base_offset in range(1, 4)], recent.swaps)
    assert recent.size_bytes == SIZE


def test_a_deleted_stream_leaves_nothing():
    recent = Recent(16 * SIZE)
    recent.keep(STREAM, [make(0)], recent.swaps)
    recent.forget_stream(STREAM)
    assert recent.size_bytes == 0
    assert recent.read(STREAM, 0, 1) is None


def test_hits_and_misses_are_counted():
    recent = Recent(16 * SIZE)
    recent.read(STREAM, 0, 1)
    recent.keep(STREAM, [make(0)], recent.swaps)
    recent.read(STREAM, 0, 1)
    recent.add(STREAM, make(5))
    recent.read(STREAM, 5, 1)
    assert (recent.hits, recent.misses) == (2, 1)


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 60), st.integers(1, 6), st.integers(1, 10)),
    max_size=40,
)


@settings(deadline=None)
@given(steps)
def test_memory_answers_what_the_file_would_or_nothing(steps: list[tuple[bool, int, int, int]]):
    log = [make(base_offset, count=3) for base_offset in range(0, 200, 3)]
    recent = Recent(12 * log[0].size)
    written = 0
    for appends, offset, count, room in steps:
        if appends and written < len(log):
            recent.add(STREAM, log[written])
            written += 1
            recent.written(STREAM, log[written - 1].next_offset)
        if offset >= 3 * written:
            continue  # nobody reads at the high watermark
        first = offset // 3
        room_bytes = room * log[0].size
        found = recent.read(STREAM, offset, room_bytes)
        if found is not None:
            assert found == log[first : first + len(found)]
            assert len(found) <= room
        elif first + count <= written:
            recent.keep(STREAM, log[first : first + count], recent.swaps)
        assert recent.size_bytes <= 12 * log[0].size


def test_what_compaction_replaced_is_read_from_the_file_from_then_on():
    recent = Recent(100 * SIZE)
    recent.keep(STREAM, [make(0)], recent.swaps)
    for base_offset in range(1, 9):
        recent.add(STREAM, make(base_offset))
    recent.add(STREAM + 1, make(2))
    recent.written(STREAM, 9)
    recent.swapped(STREAM, 4)
    for offset in range(4):
        assert recent.read(STREAM, offset, SIZE) is None
    assert offsets(recent.read(STREAM, 4, 100 * SIZE)) == [4, 5, 6, 7, 8]
    assert offsets(recent.read(STREAM + 1, 2, SIZE)) == [2]


def test_what_was_read_before_a_swap_is_not_kept_after_it():
    recent = Recent(100 * SIZE)
    swaps = recent.swaps
    recent.swapped(STREAM, 4)
    recent.keep(STREAM, [make(0)], swaps)
    assert recent.read(STREAM, 0, 1) is None


def test_room_is_made_of_what_was_replaced_too():
    recent = Recent(10 * SIZE)
    for base_offset in range(10):
        recent.add(STREAM, make(base_offset))
    recent.written(STREAM, 10)
    recent.swapped(STREAM, 6)
    for base_offset in range(10, 18):
        recent.add(STREAM, make(base_offset))
    assert recent.size_bytes <= 10 * SIZE
    assert offsets(recent.read(STREAM, 10, 100 * SIZE)) == list(range(10, 18))
    recent.written(STREAM, 18)
    recent.swapped(STREAM, 18)
    recent.add(STREAM, make(18))
    assert offsets(recent.read(STREAM, 18, 1)) == [18]
