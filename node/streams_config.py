"""The settings of a stream: names, defaults, ranges.

Kafka's names where Kafka has the concept. A setting that is not built yet is known, but only its
default is accepted: a stream never claims to do what it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..replication.policy import contradiction
from ..replication.types import StreamConfig
from ..storage.codec import CODECS
from .nearest import unknown
from .units import GiB, KiB, MiB, parse_count, parse_duration_ms, parse_size

Given: TypeAlias = int | float | str | bool
"""As it comes out of a request's body."""

ENCODED_BYTES_MAX: Final = 4 * MiB
"""The records of one append, packed; no record can be larger."""
RECORDS_MAX: Final = 10_000
"""Of one append."""


class StreamConfigError(ValueError):
    """`name` is unknown, or its value cannot be had."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name


class SettingNotBuilt(StreamConfigError):
    """The value could be had if the setting `name` did anything yet."""


@dataclass(frozen=True, slots=True)
class StreamSetting:
    """`parse` returns the value as it is kept, or raises ValueError saying what is wanted."""

    default: int | str | bool
    parse: Callable[[Given], int | str | bool]
    is_built: bool = False


def complete_stream_config(given: Mapping[str, Given]) -> StreamConfig:
    """Return all settings, those `given` parsed and the others at their defaults.

    Raises StreamConfigError.
    """
    defaults = {name: setting.default for name, setting in STREAM_SETTINGS.items()}
    config = defaults | parse_stream_config(given)
    wrong = contradiction(config)
    if wrong is not None:
        raise StreamConfigError(*wrong)
    return config


def parse_stream_config(given: Mapping[str, Given]) -> dict[str, int | str | bool]:
    """Return the settings that are `given`, parsed. Raises StreamConfigError."""
    config = {}
    for name, value in given.items():
        setting = STREAM_SETTINGS.get(name)
        if setting is None:
            raise StreamConfigError(name, unknown("setting", name, STREAM_SETTINGS))
        config[name] = _parsed(name, setting, value)
    return config


def _parsed(name: str, setting: StreamSetting, value: Given) -> int | str | bool:
    try:
        parsed = setting.parse(value)
    except ValueError as error:
        raise StreamConfigError(name, str(error)) from error
    if not setting.is_built and parsed != setting.default:
        raise SettingNotBuilt(
            name, f"{name} is not built yet: only its default {setting.default!r} is accepted"
        )
    return parsed


def _number(parse: Callable[[str], int], low: int, high: int) -> Callable[[Given], int]:
    def parse_in_range(value: Given) -> int:
        if isinstance(value, bool | float):
            raise ValueError(f"{value!r} is not a whole number or a text such as '64MiB' or '7d'")
        number = value if isinstance(value, int) else parse(value)
        if not low <= number <= high:
            raise ValueError(f"{value!r} is outside of {low} … {high}")
        return number

    return parse_in_range


def _choice(*words: str) -> Callable[[Given], str]:
    def parse(value: Given) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return parse


def _flag(value: Given) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value == "true"


def _ratio(value: Given) -> str:
    """Return the ratio as decimal text: what goes through Raft holds no floats."""
    try:
        ratio = float(value)
    except (ValueError, OverflowError):
        ratio = -1.0
    if isinstance(value, bool) or not 0 <= ratio <= 1:
        raise ValueError(f"{value!r} is no ratio from 0 to 1")
    return repr(ratio)


_EVER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly."""
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000

STREAM_SETTINGS: Final[Mapping[str, StreamSetting]] = {
    "segment.bytes": StreamSetting(64 * MiB, _number(parse_size, 16 * KiB, GiB), is_built=True),
    "segment.ms": StreamSetting(-1, _number(parse_duration_ms, -1, _EVER), is_built=True),
    "retention.ms": StreamSetting(-1, _number(parse_duration_ms, -1, _EVER), is_built=True),
    "retention.bytes": StreamSetting(-1, _number(parse_size, -1, _EVER), is_built=True),
    "retention.records": StreamSetting(-1, _number(parse_count, -1, _EVER), is_built=True),
    "cleanup.policy": StreamSetting(
        "delete", _choice("delete", "compact", "compact,delete"), is_built=True
    ),
    "min.compaction.lag.ms": StreamSetting(0, _number(parse_duration_ms, 0, _EVER), is_built=True),
    "max.compaction.lag.ms": StreamSetting(
        -1, _number(parse_duration_ms, -1, _EVER), is_built=True
    ),
    "min.cleanable.dirty.ratio": StreamSetting("0.5", _ratio, is_built=True),
    "delete.retention.ms": StreamSetting(
        _DAY_MS, _number(parse_duration_ms, 0, _EVER), is_built=True
    ),
    "max.message.bytes": StreamSetting(
        MiB, _number(parse_size, 1, ENCODED_BYTES_MAX), is_built=True
    ),
    "compression.type": StreamSetting("none", _choice(*CODECS), is_built=True),
    "dedupe.window.ms": StreamSetting(
        _DAY_MS, _number(parse_duration_ms, 1, 30 * _DAY_MS), is_built=True
    ),
    "dedupe.max.entries": StreamSetting(100_000, _number(parse_count, 1, 1_000_000), is_built=True),
    "immutable": StreamSetting(False, _flag, is_built=True),
    "durability": StreamSetting("quorum", _choice("quorum", "relaxed")),
}
