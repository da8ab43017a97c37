"""Wall clocks of processes, which jump."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_SITE: Final = Path(__file__).parent / "shifted_clock"


class Clock:
    """The wall clock of the processes that begin with `prefix`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(0)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The beginning of a command that runs a Python."""
        return ("env", f"PYTHONPATH={_SITE}", f"CLOCK_SHIFT_FILE={self._path}")

    def jump(self, shift_ms: int) -> None:
        """Show the true time and `shift_ms` from now on."""
        new = self._path.with_suffix(".new")
        new.write_text(str(shift_ms))
        os.replace(new, self._path)
