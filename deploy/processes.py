"""Ports and processes of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

MIB = 1 << 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def rss_mib_of(pids: Iterable[int]) -> float:
    return sum(map(rss_mib, pids))


def cpu_s(pid: int) -> float:
    """CPU time of a living process, its threads included, its children not."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def cpu_s_of(pids: Iterable[int]) -> float:
    return sum(map(cpu_s, pids))


def machine_cpu_s() -> tuple[float, float]:
    """CPU seconds since the machine's start that somebody used, and all there were."""
    with open("/proc/stat") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / TICKS_PER_S, sum(ticks) / TICKS_PER_S


def children_of(parent: int, word: str) -> list[int]:
    """Return the living children of a process that have the word in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if not entry.isdecimal() or word not in read_text(f"/proc/{entry}/cmdline"):
                continue
            if int(read_text(f"/proc/{entry}/stat").rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry))
    return found


def read_text(path: str) -> str:
    with open(path) as file:
        return file.read()
