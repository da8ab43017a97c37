"""How long an fsync takes while somebody else writes a lot to the same disk.

    python deploy/neighbour.py [--folder .] [--mib 512] [--rate 100] [--rounds 5]

One thread appends 1 KB and fdatasyncs, a hundred times a second: a write-ahead log. Another one
writes files of 64 MiB at `--rate` MiB a second, as a node that catches up does, and syncs them as
the rows say. Prints the median over the rounds; the rows take turns, so that what else the machine
does hits all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time

MIB = 1 << 20
FILE_MIB = 64
WAYS = {"nothing": 0, "all at the end": 1 << 30, "each 64 MiB": 64, "each MiB": 1}
"""After how many MiB it syncs; 0: it does not write at all."""


def append(path: str, stop: threading.Event, latencies_ms: list[float]) -> None:
    value = os.urandom(1000)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while not stop.wait(0.01):
        began = time.perf_counter()
        os.write(fd, value)
        os.fdatasync(fd)
        latencies_ms.append((time.perf_counter() - began) * 1000)
    os.close(fd)


def write_much(folder: str, mib: int, rate: float, sync_mib: int) -> None:
    piece = os.urandom(MIB)
    began = time.monotonic()
    fds = []
    for done in range(mib):
        if done % FILE_MIB == 0:
            path = f"{folder}/much{len(fds)}"
            fds.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        os.write(fds[-1], piece)
        if (done + 1) % sync_mib == 0:
            os.fdatasync(fds[-1])
        time.sleep(max(0.0, began + done / rate - time.monotonic()))
    for fd in fds:
        os.fdatasync(fd)
        os.close(fd)


def one(folder: str, mib: int, rate: float, sync_mib: int) -> tuple[float, float, float]:
    """p50, p99 and the largest, in ms."""
    stop, latencies_ms = threading.Event(), list[float]()
    log = threading.Thread(target=append, args=(f"{folder}/log", stop, latencies_ms))
    log.start()
    if sync_mib:
        write_much(folder, mib, rate, sync_mib)
    else:
        time.sleep(mib / rate)
    stop.set()
    log.join()
    cuts = statistics.quantiles(latencies_ms, n=100)
    return cuts[49], cuts[98], max(latencies_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=".")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rate", type=float, default=100.0, help="MiB per second")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, sync_mib in WAYS.items():
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                found[way].append(one(folder, arguments.mib, arguments.rate, sync_mib))
    for way, rounds in found.items():
        p50, p99, longest = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"{way}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms")


if __name__ == "__main__":
    main()
