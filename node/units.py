"""Sizes and durations as people write them: `64MiB`, `500ms`, `7d`.

Numbers are whole. `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024, `KB` … `TB` powers of 1000; case
does not matter. A number without a unit is bytes, or milliseconds.
"""

from __future__ import annotations

import re
from typing import Final

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

SIZES: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": KiB,
    "mib": MiB,
    "gib": GiB,
    "tib": 1024 * GiB,
}
DURATIONS: Final = {
    "": 1,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}
_NUMBER = re.compile(r"(-?[0-9]{1,19})[ ]?([a-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes that `text` means; raises ValueError saying what is wanted."""
    return _parse(text, SIZES, "a size such as 4096, 512KiB or 64MiB")


def parse_duration_ms(text: str) -> int:
    """Return the milliseconds that `text` means; raises ValueError saying what is wanted."""
    return _parse(text, DURATIONS, "a duration such as 500ms, 30s or 7d")


def parse_count(text: str) -> int:
    """Return a plain whole number; raises ValueError saying what is wanted."""
    return _parse(text, {"": 1}, "a whole number")


def _parse(text: str, units: dict[str, int], wanted: str) -> int:
    match = _NUMBER.fullmatch(text.strip().lower())
    unit = units.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not {wanted}")
    return int(match[1]) * unit
