"""Clients of all kinds on all nodes while a fault is on, and what it says about the cluster.

- Writers: the product's client, which retries; one append under way each.
- Probes: every `PROBE_S` one new append to every node, whatever became of those before. They are
  never repeated, and show when the cluster takes writes at all.
- Readers: on every node, linearizable reads of the newest record.

Every value is written once, so that a record tells where it came from.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgpack

from cute_logger.client import AsyncClient, OutcomeUnknown, Refused

PROBE_S: Final = 0.05
READ_S: Final = 0.1
ANSWER_S: Final = 8.0
PAGE_RECORDS: Final = 5000
MSGPACK: Final = {"Accept": "application/msgpack"}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An append and its answer, on this process's monotonic clock."""

    offset: int
    began: float
    ended: float


@dataclass(slots=True)
class Verdict:
    """What the nodes serve against what clients were told. All counts but the first must be 0."""

    acknowledged: int = 0
    lost: int = 0
    moved: int = 0
    doubled: int = 0
    refused_but_written: int = 0
    never_sent: int = 0
    out_of_order: int = 0
    """Appends that got an offset below one that was acknowledged before they began."""
    stale_reads: int = 0
    """Linearizable reads that did not show what was acknowledged before they began."""
    different: int = 0
    """Nodes that serve other records than the first node."""

    @property
    def faults(self) -> dict[str, int]:
        counts = {name: getattr(self, name) for name in self.__slots__ if name != "acknowledged"}
        return {name: count for name, count in counts.items() if count}


@dataclass
class Load:
    """Appends to `stream` through all nodes until cancelled, and remembers every answer."""

    urls: list[str]
    stream: str
    acknowledged: dict[bytes, Acknowledged] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)
    unknown: set[bytes] = field(default_factory=set)
    stale_reads: int = 0
    struck_at: float = 0.0
    """When the fault began, or when the nodes were started again if it took all of them."""
    remarks: list[str] = field(default_factory=list)
    """What a node did where it had a choice."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _acknowledged_end: int = 0
    """The first offset behind all acknowledged ones."""

    async def run(self, writers: int = 6) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=2)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            AsyncClient(self.urls) as client,
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(writers):
                group.create_task(self._write(client))
            for url in self.urls:
                group.create_task(self._probe(session, url))
                group.create_task(self._read(session, url))

    def strike(self) -> None:
        self.struck_at = time.monotonic()

    async def goes_on(self, appends: int = 50, deadline_s: float = 20) -> None:
        """Wait until so many appends that begin from now on are acknowledged."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                while self._count_since(began) < appends:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"writes did not go on within {deadline_s} s") from None

    def gap_s(self) -> float:
        """The longest time without an acknowledgement from the strike on."""
        ended = sorted(each.ended for each in self.acknowledged.values())
        around = ended[max(0, bisect_left(ended, self.struck_at) - 1) :]
        return max((after - before for before, after in itertools.pairwise(around)), default=0.0)

    def first_after_strike_s(self) -> float:
        """Time from the strike to the first acknowledgement of an append that began after it."""
        after = (each.ended for each in self.acknowledged.values() if each.began > self.struck_at)
        return min(after) - self.struck_at

    def slowest_s(self) -> float:
        """The longest a client waited for the acknowledgement of one append."""
        return max(each.ended - each.began for each in self.acknowledged.values())

    async def append_large(self, count: int, size_bytes: int) -> None:
        """Append records that fill several segments."""
        async with AsyncClient(self.urls) as client:
            for _ in range(count):
                await self._produce(client, self._next_value() + b" " + os.urandom(size_bytes))

    def check(self, served: list[list[Any]]) -> Verdict:
        """Compare with what every node serves: `served` holds each one's records."""
        values = [record["value"] for record in served[0]]
        count_of = Counter(values)
        verdict = Verdict(len(self.acknowledged), stale_reads=self.stale_reads)
        for value, told in self.acknowledged.items():
            if value not in count_of:
                verdict.lost += 1
            elif told.offset >= len(values) or values[told.offset] != value:
                verdict.moved += 1
        verdict.doubled = sum(count > 1 for count in count_of.values())
        verdict.refused_but_written = len(self.refused & count_of.keys())
        sent = self.acknowledged.keys() | self.unknown | self.refused
        verdict.never_sent = len(count_of.keys() - sent)
        verdict.out_of_order = self._out_of_order()
        verdict.different = sum(records != served[0] for records in served[1:])
        return verdict

    def _out_of_order(self) -> int:
        by_end = sorted(self.acknowledged.values(), key=lambda each: each.ended)
        finished, highest, wrong = 0, -1, 0
        for each in sorted(self.acknowledged.values(), key=lambda each: each.began):
            while by_end[finished].ended < each.began:
                highest = max(highest, by_end[finished].offset)
                finished += 1
            wrong += each.offset < highest
        return wrong

    def _count_since(self, moment: float) -> int:
        return sum(each.began > moment for each in self.acknowledged.values())

    def _next_value(self) -> bytes:
        return b"value %d" % next(self._numbers)

    def _note(self, value: bytes, offset: int, began: float) -> None:
        self.acknowledged[value] = Acknowledged(offset, began, time.monotonic())
        self._acknowledged_end = max(self._acknowledged_end, offset + 1)
        self.unknown.discard(value)

    async def _write(self, client: AsyncClient) -> None:
        while True:
            await self._produce(client, self._next_value())
            await asyncio.sleep(0.01)

    async def _produce(self, client: AsyncClient, value: bytes) -> None:
        self.unknown.add(value)
        began = time.monotonic()
        try:
            receipt = await client.produce(self.stream, value, timeout=30)
        except Refused:
            self.refused.add(value)
            self.unknown.discard(value)
        except OutcomeUnknown:
            pass
        else:
            self._note(value, receipt.first_offset, began)

    async def _probe(self, session: aiohttp.ClientSession, url: str) -> None:
        """Bounded: an answer is waited for no longer than ANSWER_S."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._probe_once(session, url))
                await asyncio.sleep(PROBE_S)

    async def _probe_once(self, session: aiohttp.ClientSession, url: str) -> None:
        value = self._next_value()
        self.unknown.add(value)
        began = time.monotonic()
        try:
            async with session.post(
                f"{url}/v1/streams/{self.stream}/records?timeout_ms=5000",
                json={"records": [{"value": value.decode()}]},
            ) as response:
                answer = await response.json(content_type=None)
        except aiohttp.ClientConnectorError:
            answer = {"side_effect": "none"}
        except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
            return
        if "first_offset" in answer:
            self._note(value, answer["first_offset"], began)
        elif answer["side_effect"] == "none":
            self.refused.add(value)
            self.unknown.discard(value)

    async def _read(self, session: aiohttp.ClientSession, url: str) -> None:
        while True:
            least = self._acknowledged_end
            try:
                async with session.get(
                    f"{url}/v1/streams/{self.stream}/records",
                    params={"offset": "-1", "consistency": "linearizable"},
                ) as response:
                    page = await response.json(content_type=None)
                if response.status == 200 and page["next_offset"] < least:
                    self.stale_reads += 1
            except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
                pass
            await asyncio.sleep(READ_S)


class NotServed(Exception):
    """The node answered a read with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


async def served_by(url: str, stream: str, consistency: str = "linearizable") -> list[Any]:
    """All records of the stream as this node and no other serves them. Raises NotServed."""
    records: list[Any] = []
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout, headers=MSGPACK) as session:
        while True:
            query = {
                "offset": str(len(records)),
                "limit": str(PAGE_RECORDS),
                "consistency": consistency,
            }
            async with session.get(f"{url}/v1/streams/{stream}/records", params=query) as answer:
                body = await answer.read()
            if answer.status != 200:
                raise NotServed(answer.status, body.decode(errors="replace"))
            page = msgpack.unpackb(body)["records"]
            if not page:
                return records
            assert page[0]["offset"] == len(records)
            records += page
