"""Following a stream through a fast door: the node pushes pages, and nobody asks for each.

The node sends while it is given credit; what has been taken from here is given anew. Where there
is no door, pages are asked for one by one (long polls), as they are for a key alone.
"""

from __future__ import annotations

from .answers import Page
from .batch_format import Cut, records_in
from .caller import Caller
from .connection import SessionToken
from .door import Subscription
from .frames import PageHead
from .tail import ReadPage

_UNPACKED_BYTES_MAX = 1 << 62
"""A page is as large as the node made it."""


class Following:
    """A `ReadPage` for one reader, which goes on where the last page ended."""

    def __init__(self, caller: Caller, token: SessionToken, poll: ReadPage) -> None:
        """`poll` is for where there is no door."""
        self._caller = caller
        self._token = token
        self._poll = poll
        self._subscription: Subscription | None = None
        self._next_offset: int | None = None

    async def __call__(
        self,
        stream: str,
        offset: int | None = None,
        *,
        limit: int,
        key: bytes | str | None,
        wait_ms: int,
    ) -> Page:
        if key is not None:
            return await self._poll(stream, offset, limit=limit, key=key, wait_ms=wait_ms)
        try:
            if self._subscription is None or offset is None or offset != self._next_offset:
                self.close()
                after = self._token.index or None
                self._subscription = await self._caller.follow(stream, offset, after)
                if self._subscription is None:
                    return await self._poll(stream, offset, limit=limit, key=key, wait_ms=wait_ms)
            page = _page_of(stream, *await self._caller.next_page(self._subscription))
        except BaseException:
            self.close()
            raise
        self._next_offset = page.next_offset
        self._token.see(page.index)
        return page

    def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()


def _page_of(stream: str, head: PageHead, batches: bytes) -> Page:
    cut = Cut(head.offset, head.next_offset, None, _UNPACKED_BYTES_MAX)
    records, _ = records_in(batches, cut)
    return Page(
        stream,
        records,
        head.next_offset,
        head.log_start_offset,
        head.high_watermark,
        head.index,
        head.term,
        head.lag_ms,
    )
