"""A checkpoint's file: `storage.checkpoint`."""

from __future__ import annotations

from cute_logger.storage import checkpoint
from cute_logger.storage.errors import Damaged
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk

_FOLDER = "/data"
_PATH = f"{_FOLDER}/checkpoint"


def target(data: bytes) -> None:
    choices = Choices(data)
    match choices.below(4):
        case 0:
            _check(choices.rest())
        case 1:
            _check(b"CUTECKP1" + choices.rest())
        case 2:
            _check(edited(_sound(choices), choices))
        case 3:
            content = _sound(choices)
            flip = flipped(content, choices.below(8 * len(content)))
            assert _loaded(flip) is None, "a flipped bit was not noticed"
            assert _loaded(content[: choices.below(len(content))]) is None, "a cut was not noticed"


def _sound(choices: Choices) -> bytes:
    return _saved([choices.binary() for _ in range(choices.below(6))])


def _saved(sections: list[bytes]) -> bytes:
    disk = Disk()
    disk.make_folder(_FOLDER)
    checkpoint.save(disk, _FOLDER, sections)
    assert disk.files_in(_FOLDER) == [_PATH]
    return disk.get(_PATH)


def _loaded(content: bytes) -> list[bytes] | None:
    disk = Disk()
    disk.put(_PATH, content)
    try:
        return checkpoint.load(disk, _FOLDER)
    except Damaged:
        return None


def _check(content: bytes) -> None:
    """A file that is taken for a checkpoint is, byte for byte, the one of its sections."""
    sections = _loaded(content)
    assert sections is None or _saved(sections) == content
