"""Time inside a simulation: one virtual clock, and each node's own view of it."""

from __future__ import annotations

CALL_S = 50e-6
"""Reading a clock takes this long: pysyncobj polls it in loops that wait for time to pass."""


class NodeClock:
    """The monotonic clock of one machine: its own zero, and a rate that is a little off."""

    def __init__(self, offset_s: float, rate: float) -> None:
        self._offset_s = offset_s
        self._rate = rate
        self._last = 0.0

    def read(self, virtual_s: float) -> float:
        """Return this machine's time at `virtual_s`; every reading is later than the last."""
        time = self._offset_s + self._rate * virtual_s
        later = self._last + CALL_S
        self._last = time = time if time > later else later
        return time

    def virtual(self, local_s: float) -> float:
        """Return the virtual time at which this machine's clock reads `local_s`."""
        return (local_s - self._offset_s) / self._rate
