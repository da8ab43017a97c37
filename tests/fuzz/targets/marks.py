"""The marks of a data folder, `format` and `node`: `storage.folder`, `storage.node_mark`."""

from __future__ import annotations

import json

import xxhash
from crc32c import crc32c

from cute_logger.replication.messages import PROTOCOL, Hello, decode_message, encode_frame
from cute_logger.storage.errors import Damaged, WrongFormat
from cute_logger.storage.folder import FORMAT_TEXT, DataFolder
from cute_logger.storage.node_mark import NodeMark, decode_mark, encode_mark
from fuzz.choices import Choices, edited, flipped, type_of
from fuzz.disk import Disk

_FOLDER = "/data"
_MARK = type_of(NodeMark)


def target(data: bytes) -> None:
    choices = Choices(data)
    disk = Disk()
    disk.make_folder(_FOLDER)
    form = choices.binary() if choices.below(8) == 7 else FORMAT_TEXT
    if choices.below(8):
        disk.put(f"{_FOLDER}/format", form)
    match choices.below(4):
        case 0:
            disk.put(f"{_FOLDER}/node", choices.rest())
        case 1:
            mark = encode_mark(NodeMark(id="a", incarnation=choices.text(), cluster_id="c"))
            disk.put(f"{_FOLDER}/node", mark)
            _check_flip(mark, choices.below(8 * len(mark)))
        case _:
            disk.put(f"{_FOLDER}/node", _forged(choices))
    _check(disk)


def _forged(choices: Choices) -> bytes:
    """Return a mark with fields of any type, its checksum right."""
    fields = {"format": 1, "id": "a", "incarnation": "b"}
    for field in _MARK.fields:
        if choices.below(4) == 3:
            fields[field.encode_name] = choices.value(field.type)
    line = json.dumps(fields, default=repr).encode()
    if choices.below(4) == 3:
        line = edited(line, choices)
    return b"%s\n%08x\n" % (line, crc32c(line))


def _check_flip(mark: bytes, bit: int) -> None:
    try:
        decode_mark(flipped(mark, bit))
    except ValueError:
        return
    raise AssertionError("a flipped bit was not noticed")


def _check(disk: Disk) -> None:
    """A folder is refused, or what its marks say can be told to other nodes, and stays so."""
    try:
        folder = DataFolder.open(_FOLDER, "a", disk)
    except (Damaged, WrongFormat):
        return
    folder.close()
    hello = Hello(
        PROTOCOL, "a", folder.cluster_id, None, folder.incarnation, ("127.0.0.1", 1), 0, "b"
    )
    _, body = encode_frame(hello)
    assert decode_message(memoryview(body), xxhash.xxh3_64_intdigest(body)) == hello
    again = DataFolder.open(_FOLDER, "a", disk)
    assert (again.incarnation, again.cluster_id) == (folder.incarnation, folder.cluster_id)
    again.keep_cluster_id("c")
    again.close()
    third = DataFolder.open(_FOLDER, "a", disk)
    assert (third.incarnation, third.cluster_id) == (folder.incarnation, "c")
