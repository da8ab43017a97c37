"""Disks that lose power or run full: ext4 on a file, mounted through a loop device.

The journal is committed every 300 s and replaced files are not flushed early, so that only what was
fsynced survives `lose_power`, as on a machine with much memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import struct
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
FS_IOC_SHUTDOWN: Final = 0x8004587D
NO_LOG_FLUSH: Final = 2
_OPTIONS: Final = "loop,noauto_da_alloc,commit=300"
_FILLER: Final = "filler"
_PREFIX: Final = "cute-disk"
_OWNED: Final = re.compile(rf" (?=(\S+/{_PREFIX}-(\d+)) )")


def why_not() -> str | None:
    """Why there can be no such disks here; None if there can."""
    if os.geteuid() != 0:
        return "loop devices need root"
    for program in ("mount", "umount", "mkfs.ext4"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with closing(Disk(Path(folder), size_bytes=8 * MIB)) as disk:
                disk.lose_power()
                disk.remount()
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no ext4 on loop devices here: {error}"
    return None


class Disk:
    """`folder` is made for it. Raises CalledProcessError if the system refuses."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        _sweep()
        self.root = folder / f"{_PREFIX}-{os.getpid()}"
        self._image = folder / "image"
        self.root.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-m", "0", "-F", str(self._image))
        self._mount()

    def lose_power(self) -> None:
        """Keep what was fsynced and drop everything else; whoever writes from now on gets EIO."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def remount(self) -> None:
        """Switch it on again: nobody may have a file open; the file system replays its journal."""
        _run("umount", str(self.root))
        self._mount()

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the room there is, or all but `leave_bytes`."""
        descriptor = os.open(self.root / _FILLER, os.O_WRONLY | os.O_CREAT)
        try:
            size, step = os.fstat(descriptor).st_size, 16 * MIB
            while step >= 1024:
                if step > self._free_bytes() - leave_bytes:
                    step //= 4
                    continue
                try:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 4
        finally:
            os.close(descriptor)

    def _free_bytes(self) -> int:
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def make_room(self) -> None:
        (self.root / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount, whatever state it is in; the loop device goes with it."""
        if os.path.ismount(self.root):
            done = subprocess.run(["umount", str(self.root)], check=False, capture_output=True)
            if done.returncode != 0:
                _run("umount", "--lazy", str(self.root))
        self._image.unlink(missing_ok=True)

    def _mount(self) -> None:
        _run("mount", "-o", _OPTIONS, str(self._image), str(self.root))


def _sweep() -> None:
    """Unmount what processes left that were killed."""
    for root, owner in _OWNED.findall(Path("/proc/self/mountinfo").read_text()):
        if not os.path.exists(f"/proc/{owner}"):
            subprocess.run(["umount", root], check=False, capture_output=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
