from __future__ import annotations

import pytest

from cute_logger.node.units import parse_count, parse_duration_ms, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("-1", -1),
        ("10b", 10),
        ("512KiB", 512 * 1024),
        ("64MiB", 64 * 1024**2),
        ("64mib", 64 * 1024**2),
        ("1 GiB", 1024**3),
        ("2TiB", 2 * 1024**4),
        ("5KB", 5000),
        ("5MB", 5_000_000),
    ],
)
def test_sizes_are_bytes(text, size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("250", 250),
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("7d", 604_800_000),
        ("1w", 604_800_000),
        (" 3 s ", 3000),
    ],
)
def test_durations_are_milliseconds(text, duration_ms) -> None:
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize("text", ["", "MiB", "1.5MiB", "1e3", "0x10", "7d", "1 2", "٣", "1" * 20])
def test_what_is_no_size_is_refused_with_an_example(text) -> None:
    with pytest.raises(ValueError, match="64MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "ms", "1MiB", "1y", "--1s"])
def test_what_is_no_duration_is_refused_with_an_example(text) -> None:
    with pytest.raises(ValueError, match="500ms"):
        parse_duration_ms(text)


@pytest.mark.parametrize("text", ["", "1s", "1k", "a"])
def test_a_count_has_no_unit(text) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_count(text)
