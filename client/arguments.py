"""Checks of what callers pass in: TypeError or ValueError that names the argument, or the value."""

from __future__ import annotations

from collections.abc import Mapping

from .batch_format import CODECS
from .wire import IDEMPOTENCY_KEY, INDEX_NAME, STREAM_NAME


def checked_stream(name: object) -> str:
    return _checked_name("stream", name)


def checked_group(name: object) -> str:
    return _checked_name("group", name)


def checked_index(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"index: a name is wanted, not {type(name).__name__}")
    if not INDEX_NAME.fullmatch(name):
        raise ValueError(f"index: {name!r} does not match [a-z0-9][a-z0-9._-]{{0,63}}")
    return name


def _checked_name(what: str, name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what}: a name is wanted, not {type(name).__name__}")
    if not STREAM_NAME.fullmatch(name):
        raise ValueError(f"{what}: {name!r} does not match [a-z0-9][a-z0-9._-]{{0,127}}")
    return name


def checked_member(member: object) -> str:
    if not isinstance(member, str):
        raise TypeError(f"member: a str is wanted, not {type(member).__name__}")
    if not 1 <= len(member) <= 256:
        raise ValueError("member: 1 to 256 characters are wanted")
    return member


def checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"idempotency_key: a str is wanted, not {type(key).__name__}")
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValueError("idempotency_key: 1 to 256 visible ASCII characters are wanted")
    return key


def checked_config(config: object) -> dict[str, int | str | bool]:
    if not isinstance(config, Mapping):
        raise TypeError(f"config: a mapping is wanted, not {type(config).__name__}")
    for name, value in config.items():
        if not isinstance(name, str) or not isinstance(value, int | str):
            raise TypeError(f"config: names are str, values int, str or bool: {name!r}: {value!r}")
    return dict(config)


def checked_timeout(seconds: object) -> float:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"timeout: seconds are wanted, not {type(seconds).__name__}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"timeout: {seconds} is not a positive number of seconds")
    return float(seconds)


def checked_offset(name: str, value: object) -> int:
    """Return `value` if it is an int; offsets may be negative."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: an int is wanted, not {type(value).__name__}")
    return value


def checked_count(name: str, value: object, *, least: int = 0) -> int:
    number = checked_offset(name, value)
    if number < least:
        raise ValueError(f"{name}: {number} is below {least}")
    return number


def checked_compression(compression: object) -> str | None:
    if compression is None:
        return None
    if not isinstance(compression, str):
        raise TypeError(f"compression: a str is wanted, not {type(compression).__name__}")
    checked_choice("compression", compression, tuple(CODECS))
    return compression


def checked_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
