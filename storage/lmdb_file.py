"""What LMDB does not look at before it maps a file, and marks beside it."""

from __future__ import annotations

import os
import struct
from typing import Final

_MAGIC: Final = 0xBEEFC0DE


def why_torn(path: str) -> str | None:
    """Return why mapping the file would end the process, if it would: LMDB itself believes it."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(3 * 4096)
    if not size:
        return None
    lengths = [length for length in (_length(head, 0), _length(head, 4096)) if length is not None]
    if not lengths:
        return "it is no LMDB file"
    return f"it has {size} of {max(lengths)} bytes" if size < max(lengths) else None


def _length(head: bytes, position: int) -> int | None:
    """Return how long the file is by the meta page at `position`."""
    body = head[position + 16 : position + 152]
    if len(body) < 136:
        return None
    magic, _version, _address, _map_size, page_size = struct.unpack_from("<IIQQI", body)
    last_page = struct.unpack_from("<Q", body, 120)[0]
    if magic != _MAGIC or page_size != 4096:
        return None
    return int((last_page + 1) * page_size)


def boot() -> str:
    """Return what is another text after the machine went down."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read()
    except OSError:
        return f"unknown, process {os.getpid()}"


def write_durably(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
