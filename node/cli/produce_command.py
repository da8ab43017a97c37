"""`cute produce`: records from lines."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

import click

from ...client import BatchingProducer, CuteError, MixedOutcome, OutcomeUnknown, Record
from .connect import connected, json_option, on_loop, server_option
from .lines import lines_of
from .output import Counter, print_json, progress

ATOMIC_BYTES_MAX = 16 * 1024 * 1024
"""What is read for one atomic batch; the cluster's own limit is lower."""


@dataclass(slots=True)
class Tally:
    """What became of the records, in the order they were sent."""

    stream: str
    count: int = 0
    first_offset: int | None = None
    last_offset: int | None = None
    refused: int = 0
    unknown: int = 0
    failure: CuteError | None = None
    """The first failure; one with an unknown outcome goes before a refusal."""
    _waiting: deque[tuple[int, asyncio.Future[list[int]]]] = field(default_factory=deque)

    def wait_for(self, count: int, future: asyncio.Future[list[int]]) -> None:
        """Count `count` records once their future is done and `collect` is called."""
        self._waiting.append((count, future))

    def collect(self) -> None:
        """Count the futures that are done, up to the first that is not."""
        while self._waiting and self._waiting[0][1].done():
            count, future = self._waiting.popleft()
            failure = future.exception()
            if failure is None:
                self.add(future.result())
            elif isinstance(failure, MixedOutcome):
                for part_count, outcome in failure.parts:
                    self._add_part(part_count, outcome)
            elif isinstance(failure, CuteError):
                self._add_part(count, failure)
            else:
                raise failure

    def add(self, offsets: Sequence[int]) -> None:
        if self.first_offset is None:
            self.first_offset = offsets[0]
        self.last_offset = offsets[-1]
        self.count += len(offsets)

    def _add_part(self, count: int, outcome: range | CuteError) -> None:
        if isinstance(outcome, range):
            self.add(outcome)
        else:
            self._add_failure(count, outcome)

    def _add_failure(self, count: int, failure: CuteError) -> None:
        is_unknown = isinstance(failure, OutcomeUnknown)
        self.unknown += count if is_unknown else 0
        self.refused += 0 if is_unknown else count
        if self.failure is None or (is_unknown and not isinstance(self.failure, OutcomeUnknown)):
            self.failure = failure

    def print(self, *, as_json: bool) -> None:
        """Print what is certain to stdout and what is not to stderr."""
        facts = {
            "count": self.count,
            "first_offset": self.first_offset,
            "last_offset": self.last_offset,
        }
        if as_json:
            doubts = {"refused": self.refused, "unknown": self.unknown} if self.failure else {}
            print_json({"stream": self.stream, **facts, **doubts})
        else:
            texts = ("-" if value is None else str(value) for value in facts.values())
            print(" ".join(f"{name}={text}" for name, text in zip(facts, texts, strict=True)))
        if self.failure is not None:
            upto = "" if self.last_offset is None else f", up to offset {self.last_offset}"
            click.echo(
                f"cute: {self.count} records are certainly in{upto}; "
                f"{self.refused} were refused, of {self.unknown} the outcome is unknown",
                err=True,
            )


@click.command(epilog="Example: printf 'a\\nb\\n' | cute produce orders")
@click.argument("stream")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default="-")
@click.option("--key-sep", metavar="SEP", help="A line is KEY SEP VALUE, split at the first SEP.")
@click.option(
    "--compression",
    type=click.Choice(["zstd", "lz4"]),
    help="Compress batches before they are sent; they are kept that way.",
)
@click.option("--batch", type=click.IntRange(1, 10_000), help="Send after this many records.")
@click.option(
    "--if-offset",
    type=click.IntRange(min=0),
    help="Append all as one batch, only if the stream's next offset is this one.",
)
@click.option("--idempotency-key", metavar="K", help="Append all as one batch, once per key.")
@server_option
@json_option
@on_loop
async def produce(
    stream: str,
    file: str,
    key_sep: str | None,
    compression: str | None,
    batch: int | None,
    if_offset: int | None,
    idempotency_key: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Append each line of FILE (or stdin) to STREAM; any bytes but the newline may be in it.

    Prints count, first and last offset of what is certainly in.
    """
    is_atomic = if_offset is not None or idempotency_key is not None
    if is_atomic and batch is not None:
        raise click.UsageError("--batch makes no sense where all records are one batch")
    record_of = _splitter(key_sep)
    tally = Tally(stream)
    async with connected(server) as client:
        with _opened(file) as descriptor, progress("produced") as count_more:
            try:
                async with aclosing(lines_of(descriptor)) as lines:
                    if is_atomic:
                        receipt = await client.produce(
                            stream,
                            [record_of(line) for line in await _all_of(lines)],
                            if_offset=if_offset,
                            idempotency_key=idempotency_key,
                            compression=compression,
                        )
                        tally.add(range(receipt.first_offset, receipt.last_offset + 1))
                    else:
                        producer = client.producer(
                            stream, batch_records=batch or 10_000, compression=compression
                        )
                        await _append_each(producer, tally, lines, record_of, count_more)
            finally:
                if not is_atomic or tally.count:
                    tally.print(as_json=as_json)
    if tally.failure is not None:
        raise tally.failure


async def _append_each(
    producer: BatchingProducer,
    tally: Tally,
    lines: AsyncIterator[list[bytes]],
    record_of: Callable[[bytes], Record | bytes],
    count_more: Counter,
) -> None:
    """Send the lines as they come until the input ends or a record has failed."""
    try:
        async with producer:
            async for some in lines:
                tally.wait_for(len(some), await producer.send_many(map(record_of, some)))
                count_more(len(some), sum(map(len, some)))
                tally.collect()
                if tally.failure is not None:
                    break
    finally:
        tally.collect()


async def _all_of(lines: AsyncIterator[list[bytes]]) -> list[bytes]:
    collected: list[bytes] = []
    size = 0
    async for some in lines:
        collected += some
        size += sum(map(len, some))
        if size > ATOMIC_BYTES_MAX:
            raise click.ClickException(f"one batch holds at most {ATOMIC_BYTES_MAX} bytes")
    if not collected:
        raise click.ClickException("no records: the input is empty")
    return collected


def _splitter(key_sep: str | None) -> Callable[[bytes], Record | bytes]:
    if key_sep is None:
        return bytes
    separator = os.fsencode(key_sep)
    if not separator:
        raise click.UsageError("--key-sep: at least one character is needed")

    def split(line: bytes) -> Record | bytes:
        key, found, value = line.partition(separator)
        return Record(value, key=key) if found else line

    return split


@contextmanager
def _opened(file: str) -> Iterator[int]:
    if file == "-":
        yield sys.stdin.fileno()
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
