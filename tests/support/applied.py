"""A state machine without a cluster around it."""

from __future__ import annotations

from typing import Any

from cute_logger.replication.commands import AppendBatch, Command, encode_commands
from cute_logger.replication.machine import StateMachine
from cute_logger.replication.recent import Recent
from cute_logger.storage.record import Record, encode_records


class Applied:
    """A state machine fed through the encoded commands, as committed entries reach it."""

    def __init__(self) -> None:
        self.machine = StateMachine(Recent(1 << 20), 1 << 20)
        self.now = 1_000_000

    def __call__(self, *commands: Command) -> Any:
        """The result of one entry; of its only command if it is one."""
        payload = memoryview(encode_commands(list(commands)))
        results = self.machine.apply(self.machine.applied_index + 1, 1, payload)
        return results[0] if len(commands) == 1 else results

    def append(self, *values: bytes, stream: str = "s", **fields: Any) -> Any:
        return self(self.batch(*values, stream=stream, **fields))

    def batch(self, *values: bytes, stream: str = "s", **fields: Any) -> AppendBatch:
        body = encode_records([Record(value) for value in values])
        arguments: dict[str, Any] = {
            "record_bytes_max": max(map(len, values)),
            "timestamp": self.now,
            "max_timestamp": None,
            "if_offset": None,
            "producer": None,
            "key": None,
            "digest": body[:16].ljust(16, b"\0"),
        }
        return AppendBatch(stream=stream, body=body, count=len(values), **(arguments | fields))
