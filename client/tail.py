"""Following a stream: pages, one after the other, from whichever node answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import Literal, Protocol

from .answers import Page
from .errors import (
    BeyondHighWatermark,
    ClusterUnreachable,
    Gap,
    OffsetTrimmed,
    Throttled,
    Unavailable,
)
from .retry import Backoff

_log = logging.getLogger(__name__)

OnGap = Literal["raise", "skip"]

WAIT_MS = 5000
"""Length of a long poll: as long as a frozen node may go unnoticed."""
PAGE_RECORDS = 5000
LAG_MS_MAX = 5000
"""A node that has nothing new and has not heard from the leader for as long is left."""
BEYOND_S_MAX = 30.0
"""How long an offset beyond the high watermark is put down to a node that lags."""


class ReadPage(Protocol):
    async def __call__(
        self,
        stream: str,
        offset: int | None = None,
        *,
        limit: int,
        key: bytes | str | None,
        wait_ms: int,
    ) -> Page: ...


class Tail:
    def __init__(
        self,
        read_page: ReadPage,
        leave_node: Callable[[], None],
        stream: str,
        start: int | None,
        *,
        key: bytes | str | None = None,
        on_gap: OnGap = "raise",
        wait_ms: int = WAIT_MS,
        on_end: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        """Raises ValueError if `on_gap` is neither "raise" nor "skip"."""
        if on_gap not in ("raise", "skip"):
            raise ValueError(f"on_gap: {on_gap!r} is neither 'raise' nor 'skip'")
        self._read_page = read_page
        self._leave_node = leave_node
        self._stream = stream
        self._offset = start
        self._key = key
        self._on_gap = on_gap
        self._wait_ms = wait_ms
        self._on_end = on_end
        self._backoff = backoff or Backoff()
        self._beyond_since: float | None = None

    async def pages(self) -> AsyncGenerator[Page, None]:
        """Yield pages with records, in order and without a hole, for ever.

        Raises Gap, and every refusal that waiting does not mend.
        """
        failures = 0
        while True:
            try:
                page = await self._read_page(
                    self._stream,
                    self._offset,
                    limit=PAGE_RECORDS,
                    key=self._key,
                    wait_ms=self._wait_ms,
                )
            except OffsetTrimmed as trimmed:
                self._skip_gap(trimmed)
                failures += 1
                await asyncio.sleep(self._backoff.pause_s(failures))
                continue
            except BeyondHighWatermark as beyond:
                self._check_beyond(beyond)
                await asyncio.sleep(self._backoff.pause_s(failures))
                failures += 1
                continue
            except (Unavailable, Throttled, ClusterUnreachable) as failure:
                _log.warning(
                    "tail waits for the cluster",
                    extra={"stream": self._stream, "error": failure.detail},
                )
                await asyncio.sleep(self._backoff.pause_s(failures))
                failures += 1
                continue
            failures = 0
            self._beyond_since = None
            self._offset = page.next_offset
            if page.records:
                yield page
            elif page.lag_ms > LAG_MS_MAX:
                self._leave_node()

    def _skip_gap(self, trimmed: OffsetTrimmed) -> None:
        """Move to the oldest kept record. Raises Gap if the caller wants to know."""
        start, end = self._offset, trimmed.log_start_offset
        if start is None or start < 0:
            # Trimmed between the node's look at the log start and its read: ask again.
            return
        if end <= start:
            raise trimmed
        if self._on_gap == "raise":
            raise Gap(start, end, facts=trimmed.facts) from trimmed
        self._offset = end

    def _check_beyond(self, beyond: BeyondHighWatermark) -> None:
        """Raise `beyond` once no node has caught up for too long."""
        now = monotonic()
        if self._beyond_since is None:
            self._beyond_since = now
        elif now - self._beyond_since > BEYOND_S_MAX:
            raise beyond
