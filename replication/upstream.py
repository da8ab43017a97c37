"""The one place that knows pysyncobj's inside.

`RaftCore` replaces most of pysyncobj 0.3.17 from a subclass and keeps its election skeleton: the
election timer, vote granting and counting, term and vote bookkeeping, the commit count, check-
quorum and leadership transfer. What is kept is private code of another project, so it is pinned by
version and by the hash of every method that still runs: an upstream change stops the import instead
of changing what a commit means. The file as released is known as a whole, which saves a start the
time to cut it into methods.
"""

from __future__ import annotations

import hashlib
import inspect
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import pysyncobj
import pysyncobj.syncobj as syncobj
from pysyncobj import SyncObj

T = TypeVar("T")

VERSION = "0.3.17"

FOLLOWER: int = syncobj._RAFT_STATE.FOLLOWER
CANDIDATE: int = syncobj._RAFT_STATE.CANDIDATE
LEADER: int = syncobj._RAFT_STATE.LEADER

NOOP = bytes([syncobj._COMMAND_TYPE.NO_OP])
COMMAND = bytes([syncobj._COMMAND_TYPE.REGULAR])
MEMBERS = bytes([syncobj._COMMAND_TYPE.MEMBERSHIP])
"""First byte of an entry's payload; pysyncobj writes the no-op of a new leader itself."""

RELEASED = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
"""SHA-256 of the file `syncobj.py`."""

KEPT_METHODS = {
    "__init__": "09df12cd7fd7d727",
    "_onTick": "cc9eb08232d005ba",
    "doTick": "bef78c2ba06d784b",
    "transferLeadership": "c3ac67963962d9aa",
    "_SyncObj__onMessageReceived": "ddfe34b6c0282179",
    "_SyncObj__onBecomeLeader": "5a3fd97bc17dc1cf",
    "_SyncObj__onNodeConnected": "2655afb481b4c69b",
    "_SyncObj__onNodeDisconnected": "a81c0475ba2218cc",
    "_SyncObj__setCurrentTerm": "0ad5bf456ac06bd3",
    "_SyncObj__setState": "2c1f239f7bd79b39",
    "_SyncObj__onLeaderChanged": "53b7685e1d897887",
    "_SyncObj__generateRaftTimeout": "92ed37d3620e781a",
    "_SyncObj__getCurrentLogIndex": "e5af22ca246686bd",
    "_SyncObj__getCurrentLogTerm": "1cb8867e6a13d397",
}
"""SHA-256 (first 16 hex digits) of the source of every stock method that still runs."""


class Stock(property, Generic[T]):
    """A private field of SyncObj under a name of ours.

    A property over `attrgetter` runs no Python code when it is read, a hundred times a tick.
    """

    def __init__(self, name: str) -> None:
        self._key = key = f"_SyncObj__{name}"
        super().__init__(attrgetter(key), lambda instance, value: setattr(instance, key, value))

    def __set_name__(self, owner: type, name: str) -> None:
        """Reads None before SyncObj has set the field: its constructor calls `getattr` for every
        name of `dir(self)`.
        """
        setattr(owner, self._key, None)

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Stock[T]: ...
        @overload
        def __get__(self, instance: Any, owner: type | None = None) -> T: ...
        def __get__(self, instance: Any, owner: type | None = None) -> Any: ...
        def __set__(self, instance: object, value: T) -> None: ...


def now() -> float:
    """Monotonic seconds by the clock of pysyncobj's own timers, where a simulator replaces it."""
    seconds: float = syncobj.monotonicTime()
    return seconds


def is_released(method: str) -> bool:
    """Is it the method of that name in `syncobj.py`, put there by nobody else?"""
    code = getattr(SyncObj, method).__code__
    name = f"SyncObj.{method.removeprefix('_SyncObj')}"
    return (code.co_filename, code.co_qualname) == (syncobj.__file__, name)


def fingerprint(method: str) -> str:
    source = inspect.getsource(getattr(SyncObj, method))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def check_upstream() -> None:
    """Raise ImportError unless pysyncobj is byte for byte the code this package was proven with."""
    if pysyncobj.version.VERSION != VERSION:
        raise ImportError(
            f"pysyncobj {VERSION} is needed, {pysyncobj.version.VERSION} is installed"
        )
    file = Path(syncobj.__file__).read_bytes()
    untouched = hashlib.sha256(file).hexdigest() == RELEASED
    changed = [
        name
        for name, known in KEPT_METHODS.items()
        if not (untouched and is_released(name)) and fingerprint(name) != known
    ]
    if changed:
        raise ImportError(f"pysyncobj was modified: {', '.join(changed)}")


check_upstream()
