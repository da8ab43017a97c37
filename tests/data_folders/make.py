"""Make the committed data folders anew: `python tests/data_folders/make.py [clean] [torn]`.

Do that only for a new format. A folder of a version that was given to anybody stays as it is, since
every later version has to open it: a new one goes beside it, under the next number.

    v1-clean/    of a node that was stopped
    v1-torn/     of a node that was killed (SIGKILL): the write-ahead log ends in the middle of a
                 frame, the newest segment in the middle of a batch, and much of what was
                 acknowledged is behind the checkpoint
    v1-….json    what the node said it holds
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cute_logger.replication.config import Limits, ReplicaConfig, Timing
from cute_logger.replication.replica import Replica
from cute_logger.replication.types import Append, ProducerStamp, Receipt
from cute_logger.storage import Record, encode_records
from cute_logger.storage.filesystem import OS_FILES
from cute_logger.storage.wal_frame import FrameEncoder, Kind, read_seed

HERE = Path(__file__).parent
VERSION = 1
WAIT_S = 10.0
LIMITS = Limits(wal_segment_bytes=12 << 10, wal_retain_bytes=16 << 10, checkpoint_s=3600.0)
CENTURY_MS = 100 * 365 * 86_400_000
"""The dedupe window: by the time the folder is opened, keys must not have expired."""
ORDERS = {"segment.bytes": 10_000, "retention.bytes": 1 << 30, "dedupe.window.ms": CENTURY_MS}


async def start(folder: Path) -> Replica:
    """Start a cluster of one on the folder and wait until it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    replica = await Replica.start(
        ReplicaConfig(
            id="n1",
            data=str(folder),
            raft_address=address,
            peers={},
            timing=Timing(0.03, 0.15, 0.3, 0.3),
            limits=LIMITS,
        )
    )
    async with asyncio.timeout(WAIT_S):
        while not (replica.is_leader and replica.ready):
            await asyncio.sleep(0.005)
    return replica


def append(stream: str, records: list[Record], **fields: Any) -> Append:
    sizes = [len(record.value or b"") + len(record.key or b"") for record in records]
    newest = max((r.timestamp for r in records if r.timestamp is not None), default=None)
    return Append(
        stream, encode_records(records), len(records), max(sizes), max_timestamp=newest, **fields
    )


def record(number: int) -> Record:
    """A record of every kind there is, in turn."""
    value = b"order %d " % number * 5
    match number % 5:
        case 0:
            return Record(value)
        case 1:
            return Record(value, b"c%d" % (number % 7))
        case 2:
            return Record(value, b"c\x00\xff", {"trace": f"{number:08x}", "naïve": "☕"})
        case 3:
            return Record(None, b"c%d" % (number % 7))
        case _:
            return Record(value, timestamp=1_700_000_000_000 + number)


class Writer:
    """Writes, and keeps what a reader must find."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.keys: dict[str, Receipt] = {}
        self.stamps: list[tuple[tuple[int, int, int], int, Receipt]] = []
        self._count = 0

    async def write(self, batches: int) -> None:
        """Plain batches, some with an idempotency key, some of a named producer."""
        producer, epoch = await self.replica.register_producer("till", timeout_s=WAIT_S)
        for sequence in range(batches):
            first = self._count
            records = [record(number) for number in range(first, first + 6)]
            self._count += len(records)
            await self._append(append("orders", records))
            key = f"key-{first}"
            keyed = append("orders", [record(first)], idempotency_key=key)
            self.keys[key] = await self._append(keyed)
            stamp = ProducerStamp(producer, epoch, sequence)
            sent = await self._append(append("orders", [record(first)], producer=stamp))
            self.stamps.append(((producer, epoch, sequence), first, sent))

    async def _append(self, what: Append) -> Receipt:
        return await self.replica.append(what, timeout_s=WAIT_S)

    async def prepare(self) -> None:
        replica = self.replica
        await replica.create_stream("gone", {}, timeout_s=WAIT_S)
        await self._append(append("gone", [record(0)]))
        await replica.create_stream("orders", ORDERS, timeout_s=WAIT_S)
        await replica.create_stream("empty", {"retention.records": 5}, timeout_s=WAIT_S)

    async def change(self) -> None:
        """What is not an append."""
        replica = self.replica
        await replica.delete_stream("gone", timeout_s=WAIT_S)
        await replica.trim("orders", 130, timeout_s=WAIT_S)
        await replica.alter_stream("orders", {"max.message.bytes": 2000}, timeout_s=WAIT_S)


async def facts(writer: Writer) -> dict[str, Any]:
    """What the replica says it holds, as JSON can hold it."""
    replica = writer.replica
    streams = []
    for info in replica.streams():
        found = await read_all(replica, info.name)
        fields = {**asdict(info), "config": dict(info.config)}
        streams.append(fields | {"records": found})
    return {
        "node": replica.id,
        "applied_index": replica.applied_index,
        "streams": streams,
        "keys": {key: asdict(receipt) for key, receipt in writer.keys.items()},
        "stamps": [
            {"stamp": stamp, "record": number, "receipt": asdict(receipt)}
            for stamp, number, receipt in writer.stamps[-4:]
        ],
    }


async def read_all(replica: Replica, stream: str) -> list[list[Any]]:
    """Every record: offset, timestamp, key, value, headers."""
    found: list[list[Any]] = []
    offset = replica.stream(stream).log_start_offset
    while batches := (await replica.read(stream, offset, bytes_max=1 << 20)).batches:
        for each in (record for batch in batches for record in batch.records()):
            if each.offset >= offset:
                key, value = _text(each.key), _text(each.value)
                found.append([each.offset, each.timestamp, key, value, dict(each.headers)])
        offset = batches[-1].next_offset
    return found


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


async def make_clean(folder: Path) -> None:
    writer = Writer(await start(folder))
    await writer.prepare()
    await writer.write(30)
    await writer.change()
    await writer.write(4)
    _save(folder, await facts(writer))
    await writer.replica.stop()


async def make_torn(folder: Path) -> None:
    """Stop once, so that there is a checkpoint; then write until somebody kills this process."""
    writer = Writer(await start(folder))
    await writer.prepare()
    await writer.write(28)
    await writer.replica.stop()
    writer.replica = await start(folder)
    await writer.change()
    await writer.write(8)
    await writer.replica.create_stream("late", {}, timeout_s=WAIT_S)
    await writer.replica.append(append("late", [record(1)]), timeout_s=WAIT_S)
    async with asyncio.timeout(WAIT_S):
        while writer.replica._machine.unwritten_bytes:
            await asyncio.sleep(0.005)
    _save(folder, await facts(writer))
    sys.stdout.write("written\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def _save(folder: Path, said: dict[str, Any]) -> None:
    text = json.dumps(said, indent=None, separators=(",", ":"), ensure_ascii=False)
    folder.with_suffix(".json").write_text(text + "\n")


def kill_while_it_writes(folder: Path) -> None:
    words = [sys.executable, __file__, "--until-killed", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writing:
        assert writing.stdout is not None
        said = writing.stdout.readline()
        writing.send_signal(signal.SIGKILL)
    if said != b"written\n":
        raise SystemExit("the writer did not come to its end")
    _tear_log(max((folder / "wal").glob("*.wal")))
    newest = max((folder / "streams").glob("*2/*.log"))
    os.truncate(newest, newest.stat().st_size - 33)


def _tear_log(path: Path) -> None:
    """Add the first half of a frame, as a write does that the kill cuts short."""
    file = OS_FILES.open(str(path))
    try:
        size = file.size()
        encoder = FrameEncoder(read_seed(file), position=size, vouched=size)
        encoder.add(Kind.ENTRY, 10**6, 10**3, bytes(400))
        data = b"".join(encoder.buffers())
        file.write_at(size, [data[: len(data) // 2]])
    finally:
        file.close()


def main(names: list[str]) -> None:
    if names[:1] == ["--until-killed"]:
        asyncio.run(make_torn(Path(names[1])))
    for name in names or ("clean", "torn"):
        folder = HERE / f"v{VERSION}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        if name == "clean":
            asyncio.run(make_clean(folder))
        elif name == "torn":
            kill_while_it_writes(folder)
        else:
            raise SystemExit(f"neither clean nor torn: {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
