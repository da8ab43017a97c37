"""How far a log was written, synced or not."""

from __future__ import annotations

from cute_logger.storage.log import Log, LogState


def state_of(log: Log) -> LogState:
    segments = log._segments
    seams = tuple(each.seam for each in segments.sealed.known() if each.seam is not None)
    extents = tuple(segments.extents())
    return LogState(log.log_start_offset, log.log_end_offset, extents, seams)
