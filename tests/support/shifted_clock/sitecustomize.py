"""Imported by a Python that starts with this folder in PYTHONPATH: its wall clock can be set.

What the file named by CLOCK_SHIFT_FILE holds, milliseconds as text, is added to the time. Monotonic
clocks stay as they are, as on a machine whose wall clock jumps.
"""

from __future__ import annotations

import os
import time

_path = os.environ["CLOCK_SHIFT_FILE"]
_time_ns = time.time_ns


def _shift_ms() -> int:
    with open(_path) as file:
        return int(file.read() or 0)


def _shifted_time_ns() -> int:
    return _time_ns() + _shift_ms() * 1_000_000


time.time_ns = _shifted_time_ns
time.time = lambda: _shifted_time_ns() / 1e9
