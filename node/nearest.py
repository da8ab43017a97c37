"""The name somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, however unlike; None if nothing is known."""
    found = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=0.0)
    return found[0] if found else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence that refuses `name` and offers the nearest known one."""
    names = sorted(known)
    hint = nearest(name, names)
    if hint is None:
        return f"unknown {kind} {_short(name)}: none is known here"
    return f"unknown {kind} {_short(name)}: the nearest known one is '{hint}'"


def _short(name: str) -> str:
    return repr(name if len(name) <= 100 else name[:99] + "…")
