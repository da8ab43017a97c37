"""System calls of a running process, made to fail or to take long by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

SYNCS: Final = "fdatasync,fsync"
WRITES: Final = "pwritev,pwritev2,pwrite64"
_ATTACH_S: Final = 5.0
_INJECTED: Final = re.compile(r"^\d+ +(\d+\.\d+) .*\((?:INJECTED|DELAYED)", re.MULTILINE)


def why_not() -> str | None:
    """Why strace cannot do it here; None if it can."""
    if shutil.which("strace") is None:
        return "there is no strace"
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        Injection(victim.pid, SYNCS, "error=EIO", Path(os.devnull)).stop()
    except OSError as error:
        return str(error)
    finally:
        victim.kill()
        victim.communicate()
    return None


class Injection:
    """`action` is strace's (`error=EIO`, `delay_exit=200000`), from the next call of all threads.

    Raises OSError if the process cannot be traced.
    """

    def __init__(self, pid: int, calls: str, action: str, log: Path) -> None:
        self._log = log
        self._tracer = subprocess.Popen(
            [
                *("strace", "--follow-forks", "-qq", "-ttt", "-p", str(pid), "-o", str(log)),
                *("-e", f"trace={calls}", "-e", f"inject={calls}:{action}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _ATTACH_S
        while not _is_traced(pid, self._tracer.pid):
            if self._tracer.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise OSError(f"strace could not attach to process {pid}")
            time.sleep(0.002)

    def injected_at(self) -> list[float]:
        """When calls were interfered with, in seconds since the epoch."""
        return [float(at) for at in _INJECTED.findall(self._log.read_text(errors="replace"))]

    def stop(self) -> None:
        """Detach; the process, if it lives, goes on undisturbed."""
        self._tracer.terminate()
        self._tracer.wait(10)


def _is_traced(pid: int, tracer: int) -> bool:
    """Do all threads of the process have this tracer?"""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all(f"TracerPid:\t{tracer}\n" in (t / "status").read_text() for t in threads)
    except OSError:
        return False
