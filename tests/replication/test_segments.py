"""Apply decides where segments begin, what a trim removes, and what an altered setting changes."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from cute_logger.replication import snapshot
from cute_logger.replication.commands import AlterStream, CreateStream, DeleteStream, TrimStream
from cute_logger.replication.errors import BeyondHighWatermark, UnknownStream
from cute_logger.replication.stream import Stream
from cute_logger.storage.log import LogState
from support.applied import Applied

VALUE = bytes(100)
HOUR_MS = 3_600_000


def feed(**config: Any) -> Applied:
    """A machine with the stream `s`, its settings written with _ for the dots."""
    applied = Applied()
    named = {name.replace("_", "."): value for name, value in config.items()}
    applied(CreateStream("s", named, applied.now))
    return applied


def fill(applied: Applied, count: int, *, every_ms: int = 0) -> None:
    for _ in range(count):
        applied.append(VALUE)
        applied.now += every_ms


def stream_of(applied: Applied) -> Stream:
    return applied.machine.streams["s"]


def bases(applied: Applied) -> list[int]:
    return [row.base_offset for row in stream_of(applied).segments.rows()]


def trim(applied: Applied, before: int, stream_id: int | None = None) -> Any:
    return applied(TrimStream("s", before, applied.now, stream_id))


def alter(applied: Applied, changes: dict[str, int | str | bool]) -> Any:
    return applied(AlterStream("s", changes, applied.now))


def test_a_segment_begins_before_its_limit_in_bytes_would_be_passed() -> None:
    applied = feed(segment_bytes=1000)
    fill(applied, 10)
    size = stream_of(applied).segments.size_bytes // 10
    each = 1000 // size
    assert bases(applied) == list(range(0, 10, each))
    runs = applied.machine.unwritten[1].runs
    assert [run[0].base_offset for run in runs[1:]] == bases(applied)
    assert [batch.base_offset for batch in chain(*runs)] == list(range(10))


def test_a_segment_begins_when_the_last_one_is_old_enough() -> None:
    applied = feed(segment_ms=1000)
    fill(applied, 10, every_ms=250)
    assert bases(applied) == [0, 4, 8]


def test_without_segment_ms_a_segment_ends_with_what_is_kept_at_its_beginning() -> None:
    applied = feed(segment_ms=-1, retention_ms=500)
    fill(applied, 5, every_ms=250)
    assert bases(applied) == [0, 2, 4]


def test_a_trim_moves_the_start_and_frees_whole_segments() -> None:
    applied = feed(segment_ms=1000)
    fill(applied, 10, every_ms=250)
    stream = stream_of(applied)
    each = stream.segments.size_bytes // 10

    assert trim(applied, 3) == 3
    assert (bases(applied), applied.machine.dropped) == ([0, 4, 8], False)
    assert trim(applied, 5) == 5
    assert (bases(applied), applied.machine.dropped) == ([4, 8], True)
    assert stream.segments.size_bytes == 6 * each
    assert trim(applied, 2) == 5
    assert applied.machine.unwritten[1].log_start_offset == 5


def test_a_trim_beyond_the_end_is_refused() -> None:
    applied = feed()
    fill(applied, 2)
    refused = trim(applied, 3)
    assert isinstance(refused, BeyondHighWatermark)
    assert refused.facts["high_watermark"] == 2
    assert stream_of(applied).log_start_offset == 0


def test_a_stream_trimmed_to_its_end_frees_its_last_segment_with_the_next_append() -> None:
    applied = feed()
    fill(applied, 3)
    assert trim(applied, 3) == 3
    assert bases(applied) == [0]
    fill(applied, 1)
    assert bases(applied) == [3]
    assert applied.machine.dropped


def test_a_trim_that_was_meant_for_an_earlier_stream_of_the_name_is_refused() -> None:
    applied = feed()
    fill(applied, 3)
    old = stream_of(applied).id
    applied(DeleteStream("s", applied.now))
    assert isinstance(trim(applied, 1), UnknownStream)
    applied(CreateStream("s", {}, applied.now))
    fill(applied, 3)
    assert isinstance(trim(applied, 2, old), UnknownStream)
    assert trim(applied, 2, stream_of(applied).id) == 2


def test_an_altered_setting_holds_from_the_next_append_on() -> None:
    applied = feed(segment_bytes=1 << 20, max_message_bytes=100)
    fill(applied, 4)
    info = alter(applied, {"segment.bytes": 500})
    assert info.config == {"segment.bytes": 500, "max.message.bytes": 100}
    fill(applied, 4)
    assert bases(applied) == [0, 4, 6]
    alter(applied, {"max.message.bytes": 99})
    assert applied.append(VALUE).code == "record_too_large"


def test_altering_one_setting_leaves_what_others_altered() -> None:
    applied = feed(segment_bytes=1000)
    alter(applied, {"retention.ms": 5})
    assert alter(applied, {"retention.bytes": 6}).config == {
        "segment.bytes": 1000,
        "retention.ms": 5,
        "retention.bytes": 6,
    }
    assert isinstance(applied(AlterStream("t", {}, applied.now)), UnknownStream)


def test_a_longer_dedupe_window_does_not_promise_what_is_forgotten() -> None:
    applied = feed(dedupe_window_ms=HOUR_MS)
    applied.append(b"a", key="old")
    applied.now += 2 * HOUR_MS
    applied.append(b"b", key="new")
    alter(applied, {"dedupe.window.ms": 24 * HOUR_MS})
    keys = stream_of(applied).keys
    assert keys.window_start(applied.now) == applied.now - HOUR_MS
    assert keys.find("old", applied.now) is None
    applied.now += 20 * HOUR_MS
    assert applied.append(b"b", key="new").duplicate


def test_fewer_dedupe_entries_evict_the_oldest() -> None:
    applied = feed()
    for key in ("a", "b", "c"):
        applied.append(b"x", key=key)
    alter(applied, {"dedupe.max.entries": 2})
    assert not applied.append(b"x", key="d").duplicate
    assert applied.append(b"x", key="c").duplicate
    assert not applied.append(b"x", key="b").duplicate


@pytest.mark.parametrize("before", [0, 5, 10])
def test_a_snapshot_restores_where_segments_begin(before: int) -> None:
    applied = feed(segment_ms=1000)
    fill(applied, 10, every_ms=250)
    trim(applied, before)
    rows = stream_of(applied).segments.rows()
    extents = tuple((row.base_offset, row.size_bytes) for row in rows)
    files = {1: LogState(before, 10, extents)}
    restored = Applied()
    snapshot.restore(snapshot.Snapshot(applied.machine).sections(files), restored.machine)
    restored.now = applied.now
    for machine in (applied, restored):
        fill(machine, 5, every_ms=250)
    assert stream_of(restored).segments.rows() == stream_of(applied).segments.rows()
    assert stream_of(restored).segments.size_bytes == stream_of(applied).segments.size_bytes
    assert stream_of(restored).log_start_offset == before


def test_a_checkpoint_is_refused_if_the_files_are_cut_differently() -> None:
    applied = feed()
    fill(applied, 2)
    with pytest.raises(AssertionError, match="cut"):
        list(snapshot.Snapshot(applied.machine).sections({1: LogState(0, 2, ((0, 1),))}))
