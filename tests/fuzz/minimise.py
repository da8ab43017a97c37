"""Choose anew what the repository keeps: the smallest inputs that reach every line the others do.

    python tests/fuzz/minimise.py [TARGET …]

Looks at what campaigns left in build/fuzz/<target> and at the kept corpus; `found-…`, which once
broke something, always stays.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeAlias

from run import CORPUS, TARGETS, WORK, load

Step: TypeAlias = tuple[CodeType, int, int]
"""From one line of a function of the product to another."""

KEPT_BYTES_MAX = 12_000
"""Of one target: all of them together have to stay small."""


def reached(target: Callable[[bytes], None], data: bytes) -> set[Step]:
    steps: set[Step] = set()
    last: dict[FrameType, int] = {}

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        if "/cute_logger/" not in frame.f_code.co_filename:
            return None
        steps.add((frame.f_code, last.get(frame, 0), frame.f_lineno))
        last[frame] = frame.f_lineno
        if event == "return":
            del last[frame]
        return follow

    sys.settrace(follow)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return steps


def chosen(target: Callable[[bytes], None], inputs: list[bytes]) -> Iterator[bytes]:
    known: set[Step] = set()
    size = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        steps = reached(target, data)
        if not steps <= known and size + len(data) <= KEPT_BYTES_MAX:
            known |= steps
            size += len(data)
            yield data


def minimise(name: str) -> None:
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    folders = [folder for folder in (kept, WORK / name) if folder.is_dir()]
    paths = [path for folder in folders for path in folder.iterdir() if "found-" not in path.name]
    target = load(name)
    target(b"")
    inputs = list(chosen(target, [path.read_bytes() for path in paths]))
    for path in kept.iterdir():
        if "found-" not in path.name:
            path.unlink()
    for data in inputs:
        (kept / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(name, len(inputs), "inputs,", sum(map(len, inputs)), "bytes, of", len(paths))


if __name__ == "__main__":
    for each in sys.argv[1:] or TARGETS:
        minimise(each)
