"""How far a log was written, synced or not."""

from __future__ import annotations

from cute_logger.storage.log import Log, LogState


def state_of(log: Log) -> LogState:
    extents = log._sealed.extents()
    if log._active is not None:
        extents.append((log._active.base_offset, log._active.size))
    seams = tuple(each.seam for each in log._sealed.known() if each.seam is not None)
    return LogState(log.log_start_offset, log.log_end_offset, tuple(extents), seams)
