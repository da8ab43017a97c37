"""Three real nodes, each in its own network and on its own disk, and faults done to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from cute_logger.client import AsyncClient

from . import disks, netns
from .clocks import Clock
from .disks import MIB, Disk
from .load import Load, Verdict, served_by
from .netns import Network
from .processes import ProcessCluster, Site
from .tracing import Injection

NAMES: Final = ("n1", "n2", "n3")
DISK_BYTES: Final = 512 * MIB
SETTINGS: Final = (
    "--insecure",
    *("--wal-segment-bytes", "1MiB"),
    *("--checkpoint-bytes", "1MiB"),
    *("--checkpoint-period", "1s"),
    *("--disk-reserve", "8MiB"),
)
"""Small files and many checkpoints, so that a fault meets all of them."""
SEGMENT_BYTES: Final = 64 * 1024
LOOKS_MAX: Final = 20


def why_not() -> str | None:
    """Why there can be no arena on this machine; None if there can."""
    return netns.why_not() or disks.why_not()


class Arena:
    """Closing it removes processes, namespaces, mounts and loop devices, whatever went wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.injections: dict[str, Injection] = {}
        self._closing = contextlib.ExitStack()
        self._streams = (f"load-{number}" for number in itertools.count(1))
        try:
            self.network = self._closing.enter_context(contextlib.closing(Network(NAMES)))
            self.disks = {name: self._disk(name) for name in NAMES}
            self.clocks = {name: Clock(folder / f"{name}.clock") for name in NAMES}
            sites = {name: self._site(name) for name in NAMES}
            self.cluster = ProcessCluster(folder, len(NAMES), SETTINGS, sites)
            self._closing.callback(self.cluster.stop)
            self._closing.callback(self.stop_injecting)
            self.cluster.start()
        except BaseException:
            self.close()
            raise

    def _disk(self, name: str) -> Disk:
        disk = Disk(self.folder / f"disk-{name}", DISK_BYTES)
        return self._closing.enter_context(contextlib.closing(disk))

    def _site(self, name: str) -> Site:
        prefix = (*self.network.prefix(name), *self.clocks[name].prefix)
        return Site(self.network.hosts[name], self.disks[name].root, prefix)

    def close(self) -> None:
        self._closing.close()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be where clients are."""
        with self.network.entered():
            yield

    def followers(self, leader: str) -> list[str]:
        return [name for name in NAMES if name != leader]

    def is_running(self, name: str) -> bool:
        return self.cluster.processes[name].poll() is None

    def lose_power(self, *names: str) -> None:
        """Take the power from the nodes named at the same moment, and bring their disks back."""
        for name in names:
            self.disks[name].lose_power()
        self.cluster.kill(*names)
        for name in names:
            self.disks[name].remount()

    def inject(self, name: str, calls: str, action: str) -> Injection:
        """Interfere with a node's system calls until `stop_injecting`."""
        log = self.folder / f"{name}.strace"
        self.injections[name] = Injection(self.cluster.processes[name].pid, calls, action, log)
        return self.injections[name]

    def stop_injecting(self) -> None:
        while self.injections:
            self.injections.popitem()[1].stop()

    async def exit_code(self, name: str, deadline_s: float) -> int | None:
        """Wait for the end of the process; None if it still runs at the deadline."""
        process = self.cluster.processes[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while process.poll() is None:
                    await asyncio.sleep(0.002)
        return process.poll()

    async def term(self) -> int:
        """The leader's term."""
        async with AsyncClient(self.cluster.urls) as client:
            return (await client.cluster()).term

    def repair(self) -> None:
        """Undo every fault, and start the nodes that do not run."""
        self.stop_injecting()
        self.network.heal()
        for name in NAMES:
            self.clocks[name].jump(0)
            self.disks[name].make_room()
            if self.is_running(name):
                self.cluster.signal(signal.SIGCONT, name)
            else:
                self.cluster.start(name)

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[Load]:
        """A load on a stream of its own; on leaving it has gone on for a while and ended."""
        await self.cluster.leader()
        stream = next(self._streams)
        async with AsyncClient(self.cluster.urls) as client:
            await client.create_stream(stream, {"segment.bytes": SEGMENT_BYTES})
        load = Load(self.cluster.urls, stream)
        running = asyncio.create_task(load.run())
        try:
            await load.goes_on()
            load.strike()
            yield load
            await load.goes_on()
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def verdict(self, load: Load) -> Verdict:
        """Compare what all nodes serve, once all follow one leader, with what clients were told."""
        await self.cluster.leader()
        for _ in range(LOOKS_MAX):
            served = [await served_by(url, load.stream) for url in self.cluster.urls]
            if len({len(records) for records in served}) == 1:
                break  # else appends that were under way when the clients ended came meanwhile
            await asyncio.sleep(0.2)
        return load.check(served)
