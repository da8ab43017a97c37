from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from cute_logger.client import Client, RecordTooLarge, UnknownStream
from support.scripted_node import Plays, ScriptedNode


@pytest.fixture
def remote() -> Iterator[ScriptedNode]:
    """A scripted node that is served by a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    scripted = ScriptedNode()
    asyncio.run_coroutine_threadsafe(scripted.start(), loop).result(5)
    yield scripted
    asyncio.run_coroutine_threadsafe(scripted.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_script_produces_and_reads(remote: ScriptedNode) -> None:
    with Client([remote.url]) as log:
        receipt = log.produce("s", ["a", b"b"])
        assert [r.value for r in log.read("s", offset=receipt.first_offset)] == [b"a", b"b"]
        assert [r.offset for r in log.read_iter("s")] == [0, 1]


def test_a_failure_is_raised_where_the_call_was_made(remote: ScriptedNode) -> None:
    remote.plays = [Plays.refuse(404, "unknown_stream")]
    with Client([remote.url]) as log, pytest.raises(UnknownStream):
        log.produce("s", b"a")


def test_a_producer_flushes_at_the_end_of_its_block(remote: ScriptedNode) -> None:
    with Client([remote.url]) as log:
        with log.producer("s", linger_ms=60_000) as producer:
            futures = [producer.send(b"%d" % i) for i in range(3)]
        assert [future.result(5) for future in futures] == [0, 1, 2]


def test_a_refused_record_fails_its_future(remote: ScriptedNode) -> None:
    remote.plays = [Plays.refuse(413, "record_too_large")]
    with Client([remote.url]) as log, log.producer("s") as producer:
        future = producer.send(b"a")
        with pytest.raises(RecordTooLarge):
            future.result(5)


def test_many_records_have_one_future(remote: ScriptedNode) -> None:
    threads: list[int] = []

    def values() -> Iterator[bytes]:
        for i in range(4):
            threads.append(threading.get_ident())
            yield b"%d" % i

    with Client([remote.url]) as log, log.producer("s", batch_records=3) as producer:
        one = producer.send(b"x")
        assert producer.send_many(values()).result(5) == [1, 2, 3, 4]
        assert one.result(5) == 0
        with pytest.raises(TypeError, match="iterable"):
            producer.send_many("letters")
    assert set(threads) == {threading.get_ident()}
    with pytest.raises(RuntimeError, match="closed"):
        producer.send_many([b"a"])


def test_a_tail_is_an_ordinary_iterator(remote: ScriptedNode) -> None:
    with Client([remote.url]) as log:
        log.produce("s", [b"a", b"b"])
        tail = log.tail("s", 0)
        assert [next(tail).value, next(tail).value] == [b"a", b"b"]
        log.produce("s", b"c")
        assert next(tail).value == b"c"


def test_several_threads_may_share_a_client(remote: ScriptedNode) -> None:
    with Client([remote.url]) as log:
        threads = [threading.Thread(target=log.produce, args=("s", b"%d" % i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(log.read("s")) == 8


def test_a_closed_client_says_so_and_closes_twice(remote: ScriptedNode) -> None:
    log = Client([remote.url])
    log.close()
    log.close()
    with pytest.raises(RuntimeError, match="closed"):
        log.read("s")


def test_wrong_urls_start_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="base URL"):
        Client(["nowhere"])
    assert threading.active_count() == before
