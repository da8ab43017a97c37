"""ReadIndex: linearizable reads without writing to the log (Ongaro's thesis, section 6.4).

A read notes the commit index and the newest message sequence, and waits for a round of heartbeats:
once a majority has answered messages newer than that in the same term, no other leader can have
acknowledged anything before the read began. All reads that wait share one round. No clock is
trusted.
"""

from __future__ import annotations

from collections.abc import Callable

Answer = Callable[["int | None"], None]


class ReadGate:
    """The reads of one leadership. Answers are callbacks that do not raise."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Answer]] = []
        self._round: int | None = None
        """Sequence below which the newest round began; reads after it need another."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, index: int, sequence: int, answer: Answer) -> None:
        """Wait until messages newer than `sequence` are answered, then answer `index`."""
        self._waiting.append((index, sequence, answer))

    def start_round(self, sequence: int) -> bool:
        """True if some read waits that no round under way covers; the caller sends one now."""
        if not self._waiting:
            return False
        newest = self._waiting[-1][1]
        if self._round is not None and newest < self._round:
            return False
        self._round = sequence + 1
        return True

    def check(self, echoed: Callable[[int], int], quorum: Callable[[int], bool]) -> None:
        """Answer the reads whose round is complete; `echoed(s)` counts nodes that answered a
        message after `s`.
        """
        done = 0
        for _, sequence, _ in self._waiting:
            if not quorum(echoed(sequence)):
                break
            done += 1
        answered, self._waiting = self._waiting[:done], self._waiting[done:]
        for index, _, answer in answered:
            answer(index)

    def fail(self) -> None:
        """Leadership is lost, or new: nobody is answered from an older one."""
        waiting, self._waiting, self._round = self._waiting, [], None
        for _, _, answer in waiting:
            answer(None)
