"""The suite can fail: its faults are real, and its checks see what they are there to see."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

import pytest

from support import disks, netns, tracing
from support.arena import NAMES, Arena, why_not
from support.disks import MIB, Disk
from support.load import NotServed
from support.netns import Network
from support.tracing import SYNCS


def needs(reason: str | None) -> None:
    if reason:
        pytest.skip(reason)


def test_a_disk_without_power_keeps_exactly_what_was_fsynced(tmp_path: Path) -> None:
    needs(disks.why_not())
    with contextlib.closing(Disk(tmp_path / "disk", 8 * MIB)) as disk:
        with (disk.root / "file").open("wb", buffering=0) as file:
            file.write(b"kept")
            os.fsync(file.fileno())
            file.write(b"lost")
            disk.lose_power()
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(file.fileno())
        disk.remount()
        assert (disk.root / "file").read_bytes() == b"kept"


def test_a_cut_way_is_cut_in_one_direction_until_it_heals() -> None:
    needs(netns.why_not())
    with contextlib.closing(Network(["a", "b"])) as network, contextlib.ExitStack() as stack:
        sockets = {}
        for name, host in network.hosts.items():
            with network.entered(name):
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sockets[name] = stack.enter_context(contextlib.closing(made))
            made.bind((host, 0))

        def reaches(sender: str, receiver: str, within_s: float) -> bool:
            sockets[sender].sendto(b"hello", sockets[receiver].getsockname())
            return bool(select.select([sockets[receiver]], [], [], within_s)[0]) and bool(
                sockets[receiver].recv(16)
            )

        assert reaches("a", "b", 5)
        network.cut(("a", "b"))
        assert not reaches("a", "b", 0.2)
        assert reaches("b", "a", 5)
        network.heal()
        assert reaches("a", "b", 5)


async def test_nodes_that_do_not_fsync_are_caught(tmp_path: Path) -> None:
    """strace answers every fsync with success and leaves it out: acknowledged records get lost."""
    needs(why_not() or tracing.why_not())
    arena = Arena(tmp_path)
    with contextlib.closing(arena), arena.entered():
        await arena.cluster.leader()
        for name in NAMES:
            arena.inject(name, SYNCS, "retval=0")
        async with arena.loaded() as load:
            pass
        arena.lose_power(*NAMES)
        arena.stop_injecting()
        arena.cluster.start()
        try:
            lost = (await arena.verdict(load)).lost
        except NotServed:
            lost = len(load.acknowledged)  # the stream itself is gone
        assert lost > 0
