"""Memory that was freed, and that the C library keeps: by itself it gives back only what lies at
the end of a thread's heap.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give to the system what is free, after work that took a lot; some milliseconds.

    Without glibc nothing happens. Python's lock is free meanwhile.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
