"""A node that keeps the public contract for appends and reads, and fails where a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
from aiohttp import web

from cute_logger.storage.batch import NO_PRODUCER, parse_batch

Play = Callable[["ScriptedNode", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


def problem(status: int, code: str, side_effect: str = "none", **facts: Any) -> web.Response:
    body = {"type": "about:blank", "title": code, "status": status, "detail": f"it is {code}"}
    body |= {"code": code, "side_effect": side_effect, "request_id": "r1"} | facts
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return web.json_response(
        body, status=status, content_type="application/problem+json", headers=headers
    )


def as_said(request: web.Request, raw: bytes) -> dict[str, Any]:
    """Return an append of one batch as JSON would say it, with its codec."""
    assert request.content_type == "application/vnd.cute.batch"
    batch = parse_batch(raw)
    assert batch.size == len(raw)
    said: dict[str, Any] = {"codec": batch.codec}
    said["records"] = [
        {"value": each.value} | ({} if each.key is None else {"key": each.key})
        for each in batch.records()
    ]
    if batch.producer_id != NO_PRODUCER:
        said["producer"] = {"id": batch.producer_id, "epoch": batch.producer_epoch}
        said["producer"]["sequence"] = batch.sequence
    if "if_offset" in request.query:
        said["if"] = {"offset": int(request.query["if_offset"])}
    return said


class ScriptedNode:
    """Appends are carried out in sequence, unless `plays` has something else in mind."""

    def __init__(self) -> None:
        self.plays: list[Play | None] = []
        """What to do with the next appends; None is the ordinary thing, as after the last."""
        self.reads: list[Callable[[], web.Response]] = []
        self.values: list[bytes] = []
        self.appends: list[dict[str, Any]] = []
        """All appends that came, in order, as JSON would say them."""
        self.queries: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.producers = 0
        self.log_start_offset = 0
        self.idempotency: dict[str, dict[str, Any]] = {}
        self.view: dict[str, Any] = {"node": "n1", "leader": None, "term": 1, "nodes": []}
        """What it says about the cluster."""
        self.looks = 0
        """How often it was asked for that."""
        self.looks_at_once = 0
        """The most of them at a time."""
        self._looking = 0
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._receipts: dict[tuple[int, int], dict[str, Any]] = {}
        self._next_sequence: dict[int, int] = {}
        self._grown = asyncio.Event()
        self._came = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20, middlewares=[self._freezable])
        app.router.add_get("/v1/cluster", self._cluster)
        app.router.add_post("/v1/producers", self._register)
        app.router.add_post("/v1/streams/{s}/records", self._append)
        app.router.add_get("/v1/streams/{s}/records", self._read)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def freeze(self) -> None:
        """Answer nothing any more, until `stop`."""
        self._thawed.clear()

    @web.middleware
    async def _freezable(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        await self._thawed.wait()
        return await handler(request)

    async def wait_for_looks(self, count: int) -> None:
        """Wait until it was asked for its view so often, from the beginning."""
        async with asyncio.timeout(10):
            while self.looks < count:
                self._came.clear()
                await self._came.wait()

    async def wait_for_appends(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.appends) < count:
                self._came.clear()
                await self._came.wait()

    async def _cluster(self, request: web.Request) -> web.Response:
        self.looks += 1
        self._looking += 1
        self.looks_at_once = max(self.looks_at_once, self._looking)
        self._came.set()
        await asyncio.sleep(0)
        self._looking -= 1
        body = {"cluster_id": "c", "commit_index": 10, "applied_index": 10}
        return web.json_response(body | self.view)

    async def _register(self, request: web.Request) -> web.Response:
        self.producers += 1
        return web.json_response({"id": self.producers, "epoch": 0})

    async def _append(self, request: web.Request) -> web.StreamResponse:
        body = as_said(request, await request.read())
        self.appends.append(body)
        self._came.set()
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        play = self.plays.pop(0) if self.plays else None
        if play is not None:
            return await play(self, request, body)
        return self.carry_out(body, request.headers.get("Idempotency-Key"))

    def carry_out(self, body: dict[str, Any], key: str | None = None) -> web.Response:
        producer = body.get("producer")
        if key is not None and key in self.idempotency:
            return web.json_response(self.idempotency[key] | {"duplicate": True})
        if producer is not None:
            stamp = (producer["id"], producer["sequence"])
            if stamp in self._receipts:
                return web.json_response(self._receipts[stamp] | {"duplicate": True})
            expected = self._next_sequence.get(producer["id"], 0)
            if producer["sequence"] != expected:
                return problem(409, "out_of_order_sequence", expected=expected)
        condition = body.get("if", {}).get("offset", len(self.values))
        if condition != len(self.values):
            return problem(412, "condition_failed", actual=len(self.values))
        receipt = self._store([record["value"] for record in body["records"]])
        if producer is not None:
            self._receipts[stamp] = receipt
            self._next_sequence[producer["id"]] = producer["sequence"] + 1
        if key is not None:
            self.idempotency[key] = receipt
        return web.json_response(receipt)

    def _store(self, values: list[bytes]) -> dict[str, Any]:
        first = len(self.values)
        self.values += values
        self._grown.set()
        return {
            "stream": "s",
            "first_offset": first,
            "last_offset": len(self.values) - 1,
            "count": len(values),
            "timestamp": 1000,
            "term": 1,
            "index": 10 + len(self.values),
            "duplicate": False,
            "durability": "quorum",
        }

    async def _read(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        if self.reads:
            return self.reads.pop(0)()
        end = len(self.values)
        start = int(request.query.get("offset", self.log_start_offset))
        start = max(self.log_start_offset, end + start) if start < 0 else start
        if start < self.log_start_offset:
            return problem(
                410, "offset_trimmed", log_start_offset=self.log_start_offset, high_watermark=end
            )
        if start == end and "wait_ms" in request.query:
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), 10)
            end = len(self.values)
        stop = min(end, start + int(request.query.get("limit", 500)))
        records = [
            {"offset": i, "timestamp": 1000, "key": None, "value": self.values[i], "headers": {}}
            for i in range(start, stop)
        ]
        body = {"stream": "s", "records": records, "next_offset": stop, "high_watermark": end}
        body |= {"log_start_offset": self.log_start_offset, "index": 10 + end}
        body |= {"term": 1, "lag_ms": 0}
        return web.Response(body=msgpack.packb(body), content_type="application/msgpack")


class Plays:
    """Things a node may do to an append."""

    @staticmethod
    def refuse(status: int, code: str, side_effect: str = "none", **facts: Any) -> Play:
        async def play(
            node: ScriptedNode, request: web.Request, body: dict[str, Any]
        ) -> web.StreamResponse:
            return problem(status, code, side_effect, **facts)

        return play

    @staticmethod
    def hang_up(*, carry_out: bool) -> Play:
        """Close the connection without an answer, having done the append or not."""

        async def play(
            node: ScriptedNode, request: web.Request, body: dict[str, Any]
        ) -> web.StreamResponse:
            if carry_out:
                node.carry_out(body)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        return play

    @staticmethod
    def after(event: asyncio.Event) -> Play:
        """Carry the append out once `event` is set."""

        async def play(
            node: ScriptedNode, request: web.Request, body: dict[str, Any]
        ) -> web.StreamResponse:
            await event.wait()
            return node.carry_out(body)

        return play

    @staticmethod
    def refuse_after(event: asyncio.Event, status: int, code: str) -> Play:
        async def play(
            node: ScriptedNode, request: web.Request, body: dict[str, Any]
        ) -> web.StreamResponse:
            await event.wait()
            return problem(status, code)

        return play
