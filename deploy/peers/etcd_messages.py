"""The messages of etcd's API (`etcdserverpb`) that are used here, by their numbers on the wire.

Made at run time, so that nothing generated has to be kept; fields that are not named are skipped.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bytes": _FIELD.TYPE_BYTES,
    "int64": _FIELD.TYPE_INT64,
    "uint64": _FIELD.TYPE_UINT64,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
}

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "PutRequest": {"key": (1, "bytes"), "value": (2, "bytes")},
    "RequestOp": {"request_put": (2, "PutRequest")},
    "TxnRequest": {"success": (2, "*RequestOp")},
    "TxnResponse": {"succeeded": (2, "bool")},
    "RangeRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "limit": (3, "int64"),
        "serializable": (7, "bool"),
    },
    "KeyValue": {"key": (1, "bytes"), "value": (5, "bytes")},
    "RangeResponse": {"kvs": (2, "*KeyValue"), "more": (3, "bool")},
    "DeleteRangeRequest": {"key": (1, "bytes"), "range_end": (2, "bytes")},
    "WatchCreateRequest": {
        "key": (1, "bytes"),
        "range_end": (2, "bytes"),
        "start_revision": (3, "int64"),
    },
    "WatchRequest": {"create_request": (1, "WatchCreateRequest")},
    "Event": {"kv": (2, "KeyValue")},
    "WatchResponse": {"events": (11, "*Event")},
    "ResponseHeader": {"member_id": (2, "uint64")},
    "StatusResponse": {"header": (1, "ResponseHeader"), "leader": (4, "uint64")},
    "Empty": {},
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="etcd_bench.proto", package="etcdserverpb", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            entry = message.field.add(name=field, number=number, label=label)
            if (scalar := _TYPES.get(kind)) is not None:
                entry.type = scalar
            else:
                entry.type = _FIELD.TYPE_MESSAGE
                entry.type_name = f".etcdserverpb.{kind.lstrip('*')}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"etcdserverpb.{name}"))
