"""Samples of stacks, and the layers of the product that they count for. Pure.

A layer is the innermost frame that belongs to one: the standard library and C count for who called
them, and so does what several layers use.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

LAYERS = (
    ("load", r"cute/node/cli/bench/"),
    ("HTTP (aiohttp)", r"/aiohttp/"),
    ("client: encode and decode records", r"cute/client/(record|wire|answers|batch_format)\.py"),
    ("client: batches and futures", r"cute/client/(producer|bulk|batch|window|lanes)\.py"),
    ("client: fast door", r"cute/client/(door|frames|follow)\.py"),
    ("client: calls", r"cute/client/"),
    ("fast door", r"cute/node/door/"),
    ("answer", r"cute/node/http/(answers|pages|headers)\.py"),
    ("check and pack", r"cute/node/http/"),
    ("propose", r"cute/replication/(coalescer|capacity)\.py"),
    ("WAL: frames and buffer", r"cute/storage/(wal|wal_frame|entry_cache|term_runs)\.py"),
    ("WAL: segments and recovery", r"cute/storage/wal_"),
    ("peers: messages", r"cute/replication/messages\.py"),
    ("peers: sockets", r"cute/replication/(peers|links|exchange|introductions)\.py"),
    (
        "apply",
        r"cute/replication/(machine|stream|dedupe|transactions|groups?|recent|unwritten)\.py",
    ),
    (
        "segments",
        r"cute/(replication/(stream_files|segments)|storage/(segment|store|log|index))\.py",
    ),
    ("handing work to threads", r"cute/replication/(jobs|runtime)\.py"),
    ("Raft: turns", r"cute/replication/(engine|journal|gate|measures|persistence)\.py"),
    ("Raft: protocol", r"cute/replication/(raft|following|progress|elections|upstream)\.py"),
    ("Raft: protocol", r"/pysyncobj/"),
    ("replication, the rest", r"cute/replication/"),
)
LOOP = "event loop itself"
SYSTEM = "system calls of the loop: sockets, polling"
_SHARED = (
    r"cute/(storage/(batch|record|codec|filesystem)|replication/commands"
    r"|node/cli/bench/worker)\.py"
)
"""What several layers use counts for the one that uses it."""
_FRAME = re.compile(r"^(?P<name>.*) \((?P<path>.*):\d+\)$")


@dataclass(frozen=True, slots=True)
class Place:
    """The frame a sample counts for."""

    layer: str
    function: str


def place_of(stack: Iterable[str], roots: dict[str, str]) -> Place:
    """Return the innermost frame that belongs to a layer; `stack` begins outermost."""
    for frame in reversed([*stack]):
        match = _FRAME.match(frame)
        if match is None:
            continue
        path = match["path"]
        for root, short in roots.items():
            if path.startswith(root):
                path = short + path[len(root) :]
        if re.search(_SHARED, path):
            continue
        for layer, pattern in LAYERS:
            if re.search(pattern, path):
                module = "/".join(path.split("/")[-2:]).removesuffix(".py")
                return Place(layer, f"{module}.{match['name']}")
    return Place(LOOP, LOOP)


def places_in(raw: str, roots: dict[str, str]) -> Counter[Place]:
    """Count the samples of py-spy's raw format (`frame;frame;… count`) by place."""
    counts: Counter[Place] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[place_of(stack.split(";"), roots)] += int(count)
    return counts


def package_roots() -> dict[str, str]:
    roots = {}
    for package in ("client", "node", "replication", "storage"):
        spec = importlib.util.find_spec(f"cute_logger.{package}")
        assert spec is not None
        for location in spec.submodule_search_locations or ():
            roots[f"{location}/"] = f"cute/{package}/"
    return roots


@dataclass(frozen=True, slots=True)
class Profile:
    """One process under one load: CPU seconds by layer, or by thread."""

    seconds: dict[str, float]
    samples: int
    functions: dict[str, float]
    """The loop's own seconds by function."""

    @property
    def cpu_s(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """CPU seconds of a process's threads, by their ids; the loop's is the process's own id."""

    user_s: dict[int, float]
    system_s: dict[int, float]


def split_up(
    pid: int,
    before: ThreadTimes,
    after: ThreadTimes,
    names: dict[int, str],
    samples: Counter[Place],
) -> Profile:
    """Give the loop's own time to its layers by their samples, and name the other threads."""
    spent: dict[str, float] = defaultdict(float)
    functions: dict[str, float] = defaultdict(float)
    for thread in after.user_s:
        user_s = after.user_s[thread] - before.user_s.get(thread, 0.0)
        system_s = after.system_s[thread] - before.system_s.get(thread, 0.0)
        if thread != pid:
            spent[f"thread {names.get(thread, '?')}"] += user_s + system_s
            continue
        spent[SYSTEM] += system_s
        for place, count in samples.items():
            spent[place.layer] += user_s * count / samples.total()
            functions[place.function] += user_s * count / samples.total()
    spent = {name: seconds for name, seconds in spent.items() if seconds}
    return Profile(spent, samples.total(), dict(functions))
