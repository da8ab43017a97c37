"""A log's folder whose stores or indexes were damaged: `storage.log` and all below it."""

from __future__ import annotations

from cute_logger.storage.batch import Batch
from cute_logger.storage.errors import CorruptBatch, Damaged, DamagedBatch
from cute_logger.storage.log import Log, LogConfig, LogState
from cute_logger.storage.verify import Cursor, verify
from fuzz.choices import Choices, edited, flipped
from fuzz.disk import Disk
from fuzz.targets.batches import forged, sound

_FOLDER = "/log"
_CONFIG = LogConfig(segment_bytes_max=900, index_interval_bytes=150)


def target(data: bytes) -> None:
    choices = Choices(data)
    disk = Disk()
    written, state = _grow(disk, choices)
    vouched = state if choices.flag() else None
    match choices.below(4):
        case 0:
            _garble_index(disk, choices)
            _check_same(disk, written, vouched)
        case 1:
            _flip(disk, choices)
            _check_never_wrong(disk, written, vouched)
        case 2:
            path = choices.pick(_files(disk, ".log"))
            disk.put(path, edited(disk.get(path), choices))
            _check_never_wrong(disk, written, vouched)
        case 3:
            path = choices.pick(_files(disk, ".log"))
            disk.put(path, disk.get(path) + forged(choices))
            _garble_index(disk, choices)
            _check_readable(disk, vouched)


def _grow(disk: Disk, choices: Choices) -> tuple[list[Batch], LogState]:
    written: list[Batch] = []
    with Log.open(_FOLDER, _CONFIG, files=disk) as log:
        for _ in range(1 + choices.below(16)):
            batch = sound(choices, log.log_end_offset, log.last_digest)
            log.append([batch])
            written.append(batch)
        state = log.sync()
    return written, state


def _files(disk: Disk, suffix: str) -> list[str]:
    return [path for path in disk.files_in(_FOLDER) if path.endswith(suffix)]


def _garble_index(disk: Disk, choices: Choices) -> None:
    base = choices.pick(_files(disk, ".log")).removesuffix(".log")
    path = f"{base}.index"
    before = disk.get(path) if disk.exists(path) else b""
    match choices.below(4):
        case 0:
            disk.put(path, choices.rest())
        case 1:
            disk.put(path, edited(before, choices))
        case 2 if before:
            disk.put(path, flipped(before, choices.below(8 * len(before))))
        case _:
            entries = (
                choices.below(8) << 32 | choices.below(1024) for _ in range(choices.below(6))
            )
            disk.put(path, b"".join(entry.to_bytes(8, "little") for entry in sorted(entries)))


def _flip(disk: Disk, choices: Choices) -> None:
    path = choices.pick(_files(disk, ".log"))
    content = disk.get(path)
    disk.put(path, flipped(content, choices.below(8 * len(content))))


def _reading(log: Log, offset: int) -> list[Batch]:
    return log.read(offset, 300)


def _check_same(disk: Disk, written: list[Batch], vouched: LogState | None) -> None:
    """No index, whatever is in its file, changes what a read returns."""
    with Log.open(_FOLDER, _CONFIG, files=disk, vouched=vouched) as log:
        assert log.log_end_offset == written[-1].next_offset
        for batch in reversed(written):
            for offset in range(batch.base_offset, batch.next_offset):
                assert bytes(_reading(log, offset)[0].data) == bytes(batch.data)


def _check_never_wrong(disk: Disk, written: list[Batch], vouched: LogState | None) -> None:
    """Damage in a store is noticed at open or by the read; what is returned was written."""
    try:
        log = Log.open(_FOLDER, _CONFIG, files=disk, vouched=vouched)
    except Damaged:
        return
    with log:
        wanted = {batch.base_offset: bytes(batch.data) for batch in written}
        assert vouched is None or log.log_end_offset == vouched.log_end_offset
        for offset in range(log.log_start_offset, log.log_end_offset):
            try:
                batches = _reading(log, offset)
            except DamagedBatch:
                continue
            for batch in batches:
                assert bytes(batch.data) == wanted[batch.base_offset]
        assert _is_sound(log) == _is_whole(log, wanted)


def _is_sound(log: Log) -> bool:
    """Does a check of everything find nothing?"""
    at = Cursor()
    try:
        while at.offset < log.log_end_offset:
            at, _ = verify(log, at, 300)
    except DamagedBatch:
        return False
    return True


def _is_whole(log: Log, wanted: dict[int, bytes]) -> bool:
    try:
        batches = log.read(log.log_start_offset, 1 << 30)
    except DamagedBatch:
        return False
    found = {batch.base_offset: bytes(batch.data) for batch in batches}
    return found == {base: data for base, data in wanted.items() if base < log.log_end_offset}


def _check_readable(disk: Disk, vouched: LogState | None) -> None:
    """Batches with a right checksum that are none of ours: typed errors, no endless walk."""
    try:
        log = Log.open(_FOLDER, _CONFIG, files=disk, vouched=vouched)
    except Damaged:
        return
    with log:
        for offset in range(
            log.log_start_offset, min(log.log_end_offset, log.log_start_offset + 99)
        ):
            try:
                for batch in _reading(log, offset):
                    batch.records()
            except (Damaged, CorruptBatch):
                continue
        log.append([sound(Choices(b""), log.log_end_offset, log.last_digest)])
        assert log.read(log.log_end_offset - 1, 1)
