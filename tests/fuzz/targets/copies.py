"""Copies of damaged batches that come from other nodes: `Log.mend`, `storage.mending`."""

from __future__ import annotations

import contextlib

from cute_logger.storage.batch import Batch
from cute_logger.storage.errors import BadCopy, DamagedBatch, OffsetOutOfRange
from cute_logger.storage.log import Log, LogConfig, LogState
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk
from fuzz.targets.batches import sound

_FOLDER = "/log"
_CONFIG = LogConfig(segment_bytes_max=900, index_interval_bytes=150)


def target(data: bytes) -> None:
    choices = Choices(data)
    disk = Disk()
    written, state = _grow(disk, choices)
    path = choices.pick([path for path in disk.files_in(_FOLDER) if path.endswith(".log")])
    content = disk.get(path)
    disk.put(path, flipped(content, choices.below(8 * len(content))))
    damages: list[DamagedBatch] = []
    with Log.open(_FOLDER, _CONFIG, files=disk, vouched=state, on_damage=damages.append) as log:
        for _ in range(1 + choices.below(3)):
            offset = choices.below(state.log_end_offset + 2)
            if choices.flag() and (damage := _damage_in(log)) is not None:
                offset = damage.offset
            _mend(log, offset, _copy(written, offset, choices))
        wanted = {batch.base_offset: bytes(batch.data) for batch in written}
        assert _readable(log).items() <= wanted.items(), "what was never written is served"


def _grow(disk: Disk, choices: Choices) -> tuple[list[Batch], LogState]:
    written: list[Batch] = []
    with Log.open(_FOLDER, _CONFIG, files=disk) as log:
        for _ in range(1 + choices.below(12)):
            written.append(sound(choices, log.log_end_offset, log.last_digest))
            log.append(written[-1:])
        return written, log.sync()


def _damage_in(log: Log) -> DamagedBatch | None:
    try:
        log.read(0, 1 << 30)
    except DamagedBatch as damage:
        return damage
    return None


def _copy(written: list[Batch], offset: int, choices: Choices) -> bytes:
    """Return what another node might send for the batches from `offset` on."""
    right = b"".join(bytes(each.data) for each in written if each.base_offset >= offset)
    match choices.below(6):
        case 0:
            return choices.binary(255)
        case 1:
            return edited(right, choices)
        case 2:
            # Of another history, and whole: only the chain of digests tells.
            chain = bytes([choices.below(255) + 1]) * 16
            return bytes(sound(choices, offset, chain).data) + right
        case 3:
            return right[: choices.below(len(right) + 1)]
    return right


def _mend(log: Log, offset: int, data: bytes) -> None:
    """A copy is taken, or refused with a typed error and nothing the worse for it."""
    before = _readable(log)
    with contextlib.suppress(BadCopy, DamagedBatch, OffsetOutOfRange):
        log.mend(offset, data)
    assert before.items() <= _readable(log).items(), "mending made something worse"


def _readable(log: Log) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for offset in range(log.log_end_offset):
        try:
            batch = log.read(offset, 1)[0]
        except DamagedBatch:
            continue
        found[batch.base_offset] = bytes(batch.data)
    return found
