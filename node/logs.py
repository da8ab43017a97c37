"""One line per event on stderr, as text or as JSON.

The text of an event is constant; its facts are the `extra` fields of the logging call.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
import time
from typing import Any, Final

import msgspec

logger = logging.getLogger(__name__)

QUIET_S: Final = 10.0
"""Between two lines about connections that cannot be accepted."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: str, log_format: str) -> None:
    """Send what is of `level` or above to stderr; only the process's main function calls this."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class LoopErrors:
    """An event loop's exception handler. While no file may be opened, asyncio tells of each of its
    attempts to accept a connection, many a second; one line in a while says as much.
    """

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._untold = 0
        """Attempts since the last line."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        is_about_accepting = isinstance(error, OSError) and error.errno in _EXHAUSTED
        if not is_about_accepting or "socket" not in context:
            loop.default_exception_handler(context)
            return
        self._untold += 1
        if loop.time() >= self._quiet_until:
            extra = {"error": str(error), "attempts": self._untold}
            logger.error("cannot accept connections", extra=extra)
            self._quiet_until, self._untold = loop.time() + QUIET_S, 0


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO node.node: node started http='127.0.0.1:8101'`"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_time(record)} {record.levelname} {_short(record.name)}: {record.getMessage()}"]
        parts += [f"{name}={value!r}" for name, value in facts_of(record).items()]
        if record.exc_info:
            parts.append(f"exception={self.formatException(record.exc_info)!r}")
        return " ".join(parts)


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = facts_of(record) | {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": _short(record.name),
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


def _short(name: str) -> str:
    return name.removeprefix("cute_logger.")
