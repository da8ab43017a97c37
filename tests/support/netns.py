"""Nodes in network namespaces of their own, and the faults of a network between them.

    node namespaces   10.77.0.1, 10.77.0.2, …  each with one end of a veth pair
    hub namespace     10.77.0.254 on the bridge that holds the other ends; clients run here

Nothing of it is connected to the machine's own network. Faults are firewall rules on the receiving
side, towards other nodes only: clients always reach every node, a cut-off leader too.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final

CLONE_NEWNET: Final = 0x40000000
_PREFIX: Final = "cute"
_OWNED: Final = re.compile(rf"{_PREFIX}-(\d+)-")
_numbers = itertools.count()


def why_not() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nsenter", "setpriv", "iptables-restore"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    try:
        with closing(Network(["probe"])) as network:
            network.lose(0.5, ("probe", "probe"))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces with a firewall here: {error}"
    return None


class Network:
    """Raises CalledProcessError, with nothing left behind, if the system refuses."""

    def __init__(self, names: Iterable[str]) -> None:
        _sweep()
        token = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.hosts = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._hub = f"{token}-hub"
        self._spaces = {name: f"{token}-{name}" for name in self.hosts}
        self._losses: dict[tuple[str, str], float] = {}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def prefix(self, name: str) -> tuple[str, ...]:
        """What makes a command run in the node's namespace, and end if this process is killed."""
        enter = ("nsenter", f"--net=/run/netns/{self._spaces[name]}")
        return (*enter, "setpriv", "--pdeathsig", "KILL")

    @contextmanager
    def entered(self, name: str | None = None) -> Iterator[None]:
        """Sockets that this thread opens meanwhile are the node's, or the hub's."""
        space = self._spaces[name] if name else self._hub
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{space}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def cut(self, *ways: tuple[str, str]) -> None:
        """Drop whatever goes the ways (sender, receiver)."""
        self.lose(1.0, *ways)

    def lose(self, share: float, *ways: tuple[str, str]) -> None:
        """Drop this share, drawn at random, of the packets that go the ways (sender, receiver)."""
        self._losses |= dict.fromkeys(ways, share)
        self._apply({receiver for _, receiver in ways})

    def both_ways(self, name: str, *others: str) -> list[tuple[str, str]]:
        """The ways between `name` and the others named, or all others."""
        return self.ways_from(name, *others) + [way[::-1] for way in self.ways_from(name, *others)]

    def ways_from(self, name: str, *others: str) -> list[tuple[str, str]]:
        return [(name, other) for other in others or self.hosts if other != name]

    def heal(self) -> None:
        touched = {receiver for _, receiver in self._losses}
        self._losses.clear()
        self._apply(touched)

    def close(self) -> None:
        """Remove the namespaces; the veth pairs and the bridge go with them."""
        for space in [*self._spaces.values(), self._hub]:
            if os.path.exists(f"/run/netns/{space}"):
                subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)

    def _build(self) -> None:
        _run("ip", "netns", "add", self._hub)
        self._in_hub("link", "set", "lo", "up")
        self._in_hub("link", "add", "bridge", "type", "bridge")
        self._in_hub("addr", "add", "10.77.0.254/24", "dev", "bridge")
        self._in_hub("link", "set", "bridge", "up")
        for number, (name, host) in enumerate(self.hosts.items(), 1):
            space = self._spaces[name]
            _run("ip", "netns", "add", space)
            pair = ("link", "add", f"port{number}", "type", "veth")
            self._in_hub(*pair, "peer", "name", "eth0", "netns", space)
            self._in_hub("link", "set", f"port{number}", "master", "bridge", "up")
            _run("ip", "-n", space, "link", "set", "lo", "up")
            _run("ip", "-n", space, "addr", "add", f"{host}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")

    def _in_hub(self, *words: str) -> None:
        _run("ip", "-n", self._hub, *words)

    def _apply(self, receivers: Iterable[str]) -> None:
        """Put the rules of the receivers in force, each node's all at once."""
        for receiver in receivers:
            rules = [
                f"-A INPUT -s {self.hosts[sender]} {_chance(share)}-j DROP"
                for (sender, to), share in self._losses.items()
                if to == receiver
            ]
            table = "\n".join(["*filter", ":INPUT ACCEPT", *rules, "COMMIT", ""])
            _run(*self.prefix(receiver), "iptables-restore", stdin=table)


def _sweep() -> None:
    """Remove what processes left that were killed."""
    for space in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if (owner := _OWNED.match(space)) and not os.path.exists(f"/proc/{owner[1]}"):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def _chance(share: float) -> str:
    return "" if share >= 1 else f"-m statistic --mode random --probability {share:.4f} "


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*words: str, stdin: str | None = None) -> None:
    subprocess.run(words, input=stdin, check=True, capture_output=True, text=True)
