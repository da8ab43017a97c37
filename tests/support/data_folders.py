"""The data folders of earlier versions that are committed, to be copied and opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

COMMITTED: Final = Path(__file__).parents[1] / "data_folders"


def copied(name: str, folder: Path) -> Path:
    """Return a copy of a committed folder, made in `folder`."""
    return Path(shutil.copytree(COMMITTED / name, folder / name))


def facts_of(name: str) -> Any:
    """Return what the node said it held."""
    return json.loads((COMMITTED / f"{name}.json").read_text())


def flip(path: Path, position: int, bit: int = 4) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file there with its time of change and its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }
