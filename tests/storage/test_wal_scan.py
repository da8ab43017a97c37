"""A scan of the write-ahead log sees what recovery sees, and judges bad frames alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cute_logger.storage import Damaged, Wal
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.findings import Finding
from cute_logger.storage.wal_frame import Kind
from cute_logger.storage.wal_scan import PlacedFrame, WalScan


def flush(wal: Wal) -> None:
    begun = wal.begin_flush()
    assert begun is not None
    begun.run()
    wal.end_flush(begun)


def written(folder: Path) -> None:
    """A log with everything in it: entries, votes, truncations, a reset, several files."""
    wal = Wal.open(str(folder), segment_bytes_max=600)
    wal.set_hard_state(1, "n1")
    for index in range(1, 21):
        wal.append(index, 1, b"%d" % index * 20)
        flush(wal)
    wal.truncate(15)
    wal.set_hard_state(2, None)
    for index in range(15, 19):
        wal.append(index, 2, b"again")
        flush(wal)
    wal.truncate(18)
    flush(wal)
    wal.close()


def scanned(folder: Path) -> tuple[list[PlacedFrame], list[Finding], WalScan]:
    scan = WalScan(OS_FILES, str(folder))
    seen = list(scan.run())
    frames = [each for each in seen if isinstance(each, PlacedFrame)]
    return frames, [each for each in seen if isinstance(each, Finding)], scan


def test_all_frames_are_seen_in_order(tmp_path: Path) -> None:
    written(tmp_path)
    frames, findings, scan = scanned(tmp_path)
    assert findings == []
    entries = [each.frame.index for each in frames if each.frame.kind == Kind.ENTRY]
    assert entries == [*range(1, 21), *range(15, 19)]
    assert [each.frame.index for each in frames if each.frame.kind == Kind.TRUNCATE] == [15, 18]
    files = len(list(tmp_path.iterdir()))
    assert files > 3
    assert sum(each.frame.kind == Kind.SEGMENT for each in frames) == files
    assert scan.image is not None
    assert (scan.image.base_index, scan.image.last_index, scan.image.term) == (0, 17, 2)
    assert scan.image.runs.term_at(16) == 2


def test_every_flipped_bit_is_judged_as_recovery_judges_it(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    written(whole)
    frames, _, _ = scanned(whole)
    for placed in frames:
        shutil.copytree(whole, broken)
        path = broken / Path(placed.path).name
        data = bytearray(path.read_bytes())
        data[placed.position + 9] ^= 1
        path.write_bytes(data)
        _, findings, _ = scanned(broken)
        assert (findings[0].path, findings[0].position) == (str(path), placed.position)
        try:
            Wal.open(str(broken)).close()
            assert not findings[0].is_damage
        except Damaged:
            assert findings[0].is_damage
        shutil.rmtree(broken)


@pytest.mark.parametrize("tail", [b"\0" * 64, b"half a frame", b"\xff" * 5000])
def test_whatever_hangs_on_is_a_torn_end(tmp_path: Path, tail: bytes) -> None:
    written(tmp_path)
    newest = max(tmp_path.iterdir())
    size = newest.stat().st_size
    newest.write_bytes(newest.read_bytes() + tail)
    _, findings, scan = scanned(tmp_path)
    assert [(each.position, each.is_damage) for each in findings] == [(size, False)]
    assert scan.image is not None
    assert scan.image.last_index == 17


def test_a_scan_goes_on_behind_a_damaged_file(tmp_path: Path) -> None:
    written(tmp_path)
    first, *others = sorted(tmp_path.iterdir())
    data = bytearray(first.read_bytes())
    data[200] ^= 1
    first.write_bytes(data)
    frames, findings, scan = scanned(tmp_path)
    assert [each.path for each in findings] == [str(first)]
    assert {each.path for each in frames} == {str(path) for path in [first, *others]}
    assert scan.image is not None
    assert scan.image.last_index == 17


def test_a_log_whose_beginning_was_dropped_begins_later(tmp_path: Path) -> None:
    written(tmp_path)
    sorted(tmp_path.iterdir())[0].unlink()
    _, findings, scan = scanned(tmp_path)
    assert findings == []
    wal = Wal.open(str(tmp_path), after=16, after_term=2)
    assert scan.image is not None
    assert scan.image.base_index == wal.first_index - 1 > 0
    wal.close()
