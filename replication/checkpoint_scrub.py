"""Reads the checkpoint in the background, a section at a time.

All of what it says is in memory too, so that a damaged one is simply written anew; the next start
would have to fetch everything from another node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..storage import checkpoint
from ..storage.errors import Damaged
from ..storage.filesystem import FileSystem
from .measures import Measures

logger = logging.getLogger(__name__)


class CheckpointScrub:
    def __init__(
        self, files: FileSystem, folder: str, measures: Measures, renew: Callable[[], None]
    ) -> None:
        """`renew` has another checkpoint written."""
        self._files = files
        self._path = checkpoint.path_in(folder)
        self._measures = measures
        self._renew = renew
        self._at = checkpoint.Place()
        self._saved = 0
        """How many had been saved when this reading began."""

    def begin(self) -> None:
        self._at = checkpoint.Place()
        self._saved = self._measures.checkpoints

    def step(self) -> checkpoint.Place | Damaged | None:
        """On the streams lane: check the next section."""
        try:
            if self._files.exists(self._path):
                return checkpoint.check_next(self._files, self._path, self._at)
        except Damaged as damage:
            return damage
        return None

    def stepped(self, found: checkpoint.Place | Damaged | None) -> int | None:
        """Take in what `step` found; the bytes it checked, None at the end."""
        if self._measures.checkpoints != self._saved:
            # Another one has the name by now, and was written just now.
            return None
        if isinstance(found, Damaged):
            logger.error("the checkpoint is damaged", extra={"reason": str(found)})
            self._measures.damaged_checkpoints += 1
            self._renew()
        if not isinstance(found, checkpoint.Place):
            return None
        size, self._at = found.position - self._at.position, found
        return size
