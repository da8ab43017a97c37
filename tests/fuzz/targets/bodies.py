"""Bodies of HTTP requests, up to what reaches the state machine: `node.http.bodies`."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import msgspec
import xxhash

from cute_logger.node.addresses import parse_address
from cute_logger.node.http import cluster, groups, producers, streams, tx
from cute_logger.node.http.bodies import JSON, MSGPACK, Form, decode_body
from cute_logger.node.http.problems import Problem, describe
from cute_logger.node.http.records import APPEND_FORM, build_append
from cute_logger.node.streams_config import StreamConfigError, parse_stream_config
from cute_logger.replication.commands import (
    AppendBatch,
    Command,
    CommitOffset,
    CreateStream,
    Transact,
    decode_commands,
    encode_commands,
)
from cute_logger.replication.types import Append
from cute_logger.storage.record import decode_records
from fuzz.choices import Choices, edited, type_of
from fuzz.targets.commands import check_snapshot, new_machine

_RECORDS = [
    {"value": "a", "key": "k", "headers": {"h": "v", "i": "w"}, "timestamp": 5},
    {"value": None},
]
_CONFIG = {
    "config": {"segment.bytes": "64KiB", "min.cleanable.dirty.ratio": 0.5, "retention.ms": -1}
}
_COMMIT = {"group": "g", "stream": "s", "offset": 1}
_SOUND: tuple[tuple[Form[Any], dict[str, Any]], ...] = (
    (APPEND_FORM, {"records": _RECORDS}),
    (APPEND_FORM, {"records": [{"key_b64": "aw==", "value_b64": "AAE="}], "if": {"offset": 4}}),
    (APPEND_FORM, {"producer": {"id": 1, "epoch": 0, "sequence": 0}, "records": _RECORDS}),
    (streams._STREAM_FORM, _CONFIG),
    (streams._ALTER_FORM, _CONFIG),
    (streams._TRIM_FORM, {"before": 3}),
    (cluster._FORM, {"node": "n1"}),
    (cluster._MEMBER_FORM, {"id": "n1", "raft": "h:1"}),
    (cluster._MEMBER_FORM, {"id": "n1", "raft": "h:1", "role": "learner"}),
    (producers._FORM, {"name": "p"}),
    (groups._COMMIT_FORM, {"offset": 3, "lease": 1}),
    (groups._LEASE_FORM, {"member": "m", "ttl_ms": 1_000}),
    (groups._RELEASE_FORM, {"lease": None, "member": "m"}),
    (tx._FORM, {"appends": [{"stream": "s", "records": _RECORDS}], "commits": [_COMMIT, _COMMIT]}),
    (tx._FORM, {"commits": [_COMMIT]}),
)
_NAMES = (
    "value",
    "records",
    "config",
    "h",
    "x` - at `$.foo",
    "` - at `$.records[0].if",
    '"',
    "a\\",
)
_ANY = type_of(Any)


def target(data: bytes) -> None:
    choices = Choices(data)
    form, sound = choices.pick(_SOUND)
    is_json = choices.flag()
    raw = choices.rest() if choices.below(16) == 15 else _body(sound, choices, is_json=is_json)
    try:
        value = decode_body(raw, JSON if is_json else MSGPACK, form)
        _use(value)
    except Problem as problem:
        _check_problem(problem)
    else:
        _check_no_duplicates(raw, is_json=is_json)


def _body(sound: dict[str, Any], choices: Choices, *, is_json: bool) -> bytes:
    """Return about the body `sound`; names may be there twice, be odd, or be written oddly."""
    tree = _tree(sound)
    for _ in range(choices.below(4)):
        _change(tree, choices)
    raw = _json(tree, choices) if is_json else _msgpack(tree, choices)
    return edited(raw, choices) if choices.below(8) == 7 else raw


class _Pairs(list[tuple[str, Any]]):
    """An object whose names may be there twice."""


def _tree(value: Any) -> Any:
    match value:
        case dict():
            return _Pairs((name, _tree(each)) for name, each in value.items())
        case list():
            return [_tree(each) for each in value]
    return value


def _change(tree: list[Any], choices: Choices) -> None:
    at = choices.below(len(tree)) if tree else 0
    inner = tree[at][1] if tree and isinstance(tree, _Pairs) else tree[at] if tree else None
    if isinstance(inner, list) and choices.below(4):
        _change(inner, choices)
        return
    value = _odd(choices)
    if not isinstance(tree, _Pairs):
        tree[at : at + choices.below(2)] = [value]
        return
    name = tree[at][0] if tree else "value"
    match choices.below(5):
        case 0:
            tree[at : at + 1] = [(name, value)]
        case 1:
            tree.insert(at, (name, value))
        case 2:
            tree.insert(choices.below(len(tree) + 1), (name, inner))
        case 3:
            tree.insert(at, (choices.pick(_NAMES), value))
        case 4:
            del tree[at : at + 1]


def _odd(choices: Choices) -> Any:
    match choices.below(8):
        case 0:
            return 10**400
        case 1:
            return 0.25
        case 2:
            return "x" * 2_000
        case 3:
            return choices.pick(_NAMES)
    return _tree(choices.value(_ANY))


def _json(tree: Any, choices: Choices) -> bytes:
    match tree:
        case _Pairs():
            pairs = (_json(name, choices) + b":" + _json(each, choices) for name, each in tree)
            return b"{" + b",".join(pairs) + b"}"
        case list():
            return b"[" + b",".join(_json(each, choices) for each in tree) + b"]"
        case str():
            text = json.dumps(tree, ensure_ascii=choices.flag())
            escape = '\\"' if choices.below(8) < 7 else "\\u0022"
            return (text[:1] + text[1:-1].replace('\\"', escape) + text[-1:]).encode()
    return json.dumps(tree, default=repr).encode()


def _msgpack(tree: Any, choices: Choices) -> bytes:
    match tree:
        case _Pairs():
            parts = (_msgpack(each, choices) for pair in tree for each in pair)
            return _head(0x80, 0xDE, len(tree), choices) + b"".join(parts)
        case list():
            head = _head(0x90, 0xDC, len(tree), choices)
            if choices.below(16) == 15:
                # A map whose names are arrays.
                return b"\x81" + head + b"".join(_msgpack(each, choices) for each in tree) + b"\xc0"
            return head + b"".join(_msgpack(each, choices) for each in tree)
        case str() if choices.below(8) == 7:
            text = tree.encode()
            return struct.pack(">BH", 0xDA, len(text)) + text
        case int() if tree.bit_length() > 64:
            return b"\xcf" + b"\xff" * 8
    return msgspec.msgpack.encode(tree)


def _head(short: int, long: int, count: int, choices: Choices) -> bytes:
    """Return the head of a map or an array, now and then in more bytes than needed."""
    if count < 16 and choices.below(8) < 7:
        return bytes([short | count])
    return struct.pack(">BH", long, count)


def _use(value: Any) -> None:
    """Do with a body what its handler does."""
    if hasattr(value, "to_records"):
        _apply([_append(value)])
    elif isinstance(value, tx.TxBody):
        _apply([_transact(value)])
    elif isinstance(value, streams.StreamBody | streams.AlterBody):
        config = {} if isinstance(value.config, msgspec.UnsetType) else value.config
        try:
            _create(parse_stream_config(config))
        except StreamConfigError as error:
            _check_problem(streams._refusal(error))
    elif isinstance(value, cluster.MemberBody):
        cluster._raft_address(value.raft, is_insecure=True)
        parse_address(value.raft)


def _apply(commands: list[Command]) -> None:
    """Apply can take it, and the state can be kept."""
    entry = encode_commands([CreateStream("s", {}, 1), *commands])
    assert decode_commands(memoryview(entry))[1:] == commands
    machine = new_machine()
    machine.apply(1, 1, memoryview(entry))
    check_snapshot(machine)


def _transact(value: Any) -> Transact:
    parts = () if isinstance(value.appends, msgspec.UnsetType) else value.appends
    given = () if isinstance(value.commits, msgspec.UnsetType) else value.commits
    appends = []
    for at, part in enumerate(parts):
        with tx._blamed_on("appends", at):
            streams.checked_name("stream", part.stream, writes=True)
            appends.append(_append(part))
    commits = [
        CommitOffset(each.group, each.stream, each.offset, each.lease, 1_000)
        for each in tx._commits_of(given)
    ]
    return Transact(appends, commits, "k", bytes(16), 1_000)


def _append(value: Any) -> AppendBatch:
    """What a client wrote is what will be read."""
    records = value.to_records(0, len(value.records))
    append = build_append("s", value, records)
    assert decode_records(append.body) == records
    return AppendBatch(
        append.stream,
        append.body,
        append.count,
        append.record_bytes_max,
        1_000,
        append.max_timestamp,
        append.if_offset,
        _stamp(append),
        None,
        xxhash.xxh3_128_digest(append.body),
    )


def _stamp(append: Append) -> tuple[int, int, int] | None:
    stamp = append.producer
    return None if stamp is None else (stamp.id, stamp.epoch, stamp.sequence)


def _create(config: dict[str, int | str | bool]) -> None:
    entry = encode_commands([CreateStream("s", config, 1)])
    new_machine().apply(1, 1, memoryview(entry))


def _check_problem(problem: Problem) -> None:
    assert len(problem.detail) < 1_000
    json.loads(msgspec.json.encode(describe(problem, "id")))


class _Duplicate(Exception):
    pass


def _check_no_duplicates(raw: bytes, *, is_json: bool) -> None:
    """No other parser of these bytes sees two values under one name."""
    try:
        if is_json:
            json.loads(raw, object_pairs_hook=_unique)
        else:
            msgpack.unpackb(raw, object_pairs_hook=_unique, strict_map_key=False)
    except _Duplicate as error:
        raise AssertionError(f"two values under {error} were taken") from None


def _unique(pairs: list[tuple[Any, Any]]) -> None:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _Duplicate(repr(name))
