"""What this machine is, and what its disk, memory and loopback can do at best.

    python deploy/machine.py [--data FOLDER]

Figures of one thread; beside others' load they say little: a lone fdatasync on a busy processor
waits for the next tick of the scheduler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crc32c
from processes import machine_cpu_s

from cute_logger.node.cli.bench.histogram import Histogram

MB = 1_000_000
BLOCK_BYTES = 4096
ECHO = """
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := peer.recv(1000, socket.MSG_WAITALL):
    peer.sendall(data)
"""


def description() -> dict[str, str]:
    """What it is; short enough for the head of a table."""
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def limits(folder: Path, rounds: int) -> dict[str, float]:
    """Measure the floors; `rounds` synced writes and round trips each."""
    appended, overwritten = _synced_writes(folder, rounds)
    trips = _round_trips(rounds)
    return {
        "append 4 KB + fdatasync, p50 ms": appended.percentile_s(50) * 1e3,
        "append 4 KB + fdatasync, p99 ms": appended.percentile_s(99) * 1e3,
        "the same over zeros, p50 ms": overwritten.percentile_s(50) * 1e3,
        "the same over zeros, p99 ms": overwritten.percentile_s(99) * 1e3,
        "write 64 MB + fdatasync, MB/s": _disk_mb_per_s(folder),
        "memcpy of 1 MB, MB/s": _per_s(64, lambda data: bytearray(data)),
        "crc32c of 1 MB, MB/s": _per_s(64, crc32c.crc32c),
        "loopback, 1 KB there and back, p50 µs": trips.percentile_s(50) * 1e6,
        "loopback, 1 KB there and back, p99 µs": trips.percentile_s(99) * 1e6,
    }


def busy_share(seconds: float = 1.0) -> float:
    """Return which share of the processors somebody uses now, 0 to 1."""
    used, whole = machine_cpu_s()
    time.sleep(seconds)
    used_now, whole_now = machine_cpu_s()
    return (used_now - used) / (whole_now - whole)


def _synced_writes(folder: Path, rounds: int) -> tuple[Histogram, Histogram]:
    """Time appends to an empty file, then writes to one that is full of zeros on the disk."""
    block = os.urandom(BLOCK_BYTES)
    results = []
    for is_filled in (False, True):
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            if is_filled:
                file.write(bytes(BLOCK_BYTES * rounds))
                os.fsync(file.fileno())
            histogram = Histogram()
            for i in range(rounds):
                started = time.perf_counter()
                os.pwrite(file.fileno(), block, i * BLOCK_BYTES)
                os.fdatasync(file.fileno())
                histogram.add(time.perf_counter() - started)
            results.append(histogram)
    return results[0], results[1]


def _disk_mb_per_s(folder: Path) -> float:
    block = os.urandom(MB)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        started = time.perf_counter()
        for _ in range(64):
            file.write(block)
        os.fdatasync(file.fileno())
        return 64 / (time.perf_counter() - started)


def _per_s(megabytes: int, work: Callable[[bytes], Any]) -> float:
    data = os.urandom(MB)
    seconds = []
    for _ in range(megabytes):
        started = time.perf_counter()
        work(data)
        seconds.append(time.perf_counter() - started)
    return 1 / statistics.median(seconds)


def _round_trips(rounds: int) -> Histogram:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        echo = subprocess.Popen([sys.executable, "-c", ECHO, port])
        peer, _ = server.accept()
    histogram = Histogram()
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = bytes(1000)
        for _ in range(rounds):
            started = time.perf_counter()
            peer.sendall(message)
            peer.recv(1000, socket.MSG_WAITALL)
            histogram.add(time.perf_counter() - started)
    echo.wait()
    return histogram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(), help="a folder on the disk to measure")
    parser.add_argument("--rounds", type=int, default=1000)
    arguments = parser.parse_args()
    busy = busy_share()
    figures = limits(arguments.data, arguments.rounds)
    print(json.dumps({**description(), "busy before": busy, **figures}, indent=2))


if __name__ == "__main__":
    main()
