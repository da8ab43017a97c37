"""Filters never deny what is there, seldom claim what is not, and are used only as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from cute_logger.storage.segment_filter import SegmentFilter, load_filter


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    built = SegmentFilter(100, 1100)
    built.add(b"%d" % number for number in range(1000))
    built.save(str(tmp_path / "f"), b"me")
    return tmp_path / "f"


def test_a_filter_says_what_is_certainly_not_there(kept: Path) -> None:
    found = load_filter(str(kept), b"me")
    assert found is not None
    assert (found.base_offset, found.end_offset) == (100, 1100)
    assert all(b"%d" % number in found for number in range(1000))
    assert sum(b"x%d" % number in found for number in range(10_000)) < 100


def test_only_what_was_written_is_used(kept: Path) -> None:
    data = kept.read_bytes()
    assert load_filter(str(kept), b"you") is None
    assert load_filter(f"{kept}x", b"me") is None
    for position in range(0, len(data), 97):
        kept.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert load_filter(str(kept), b"me") is None
    for length in (0, 1, 8, 12, 30, len(data) - 1):
        kept.write_bytes(data[:length])
        assert load_filter(str(kept), b"me") is None


def test_an_empty_segment_has_a_filter(tmp_path: Path) -> None:
    SegmentFilter(5, 5).save(str(tmp_path / "f"), b"")
    found = load_filter(str(tmp_path / "f"), b"")
    assert found is not None
    assert b"x" not in found
