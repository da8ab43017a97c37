"""Turns msgspec's complaints into refusals that name the field, what came and what is wanted.

Everything here runs only after something was refused, so it may take its time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from ..nearest import nearest, unknown
from .problems import Problem, invalid

_MESSAGE = re.compile(r"(?P<text>.*?)(?: - at (?P<path>`\$[^`]*`))?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]`]+)|\[([0-9]+)\]|(\[\.\.\.\])")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)


def refusal(error: msgspec.ValidationError, wanted: type, came: Any, *, what: str) -> Problem:
    """Explain why `came`, untyped, is no `wanted`; `what` is `field` or `parameter`.

    `came` may be NOTHING: then the refusal does not show it.
    """
    message = _MESSAGE.fullmatch(str(error))
    assert message is not None
    text, steps = message["text"], list(_steps(message["path"] or ""))
    if found := _UNKNOWN.fullmatch(text):
        known = _fields(wanted, steps)
        return invalid(
            _name([*steps, found["name"]]),
            unknown(what, found["name"], known),
            nearest=nearest(found["name"], known),
        )
    if found := _MISSING.fullmatch(text):
        return invalid(_name([*steps, found["name"]]), f"this {what} is needed")
    value = _value_at(came, steps)
    detail = text.replace("`", "")
    if text.startswith("Invalid enum value"):
        detail = f"wanted one of {', '.join(_choices(wanted, steps))}"
    if value is not NOTHING:
        detail += f"; came {_excerpt(value)}"
    return invalid(_name(steps) or "body", detail)


def _steps(path: str) -> Iterator[str | int | None]:
    """Yield the names and positions of a path; None where msgspec does not say which key."""
    for name, position, _ in _STEP.findall(path):
        yield name or (int(position) if position else None)


def _name(steps: list[str | int | None]) -> str:
    name = ""
    for step in steps:
        if isinstance(step, str):
            name += f".{step[:100]}" if name else step[:100]
        else:
            name += "[…]" if step is None else f"[{step}]"
    return name


NOTHING = object()
"""What is not there, or not known."""


def _value_at(value: Any, steps: list[str | int | None]) -> Any:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return NOTHING
    return value


def _excerpt(value: object) -> str:
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    text = repr(value[:80] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else text[:79] + "…"


def _fields(wanted: type, steps: list[str | int | None]) -> list[str]:
    """Return the names of the fields that the object at `steps` may have."""
    found = _struct_or_list(_type_at(wanted, steps))
    if isinstance(found, inspect.StructType):
        return [field.encode_name for field in found.fields]
    return []


def _choices(wanted: type, steps: list[str | int | None]) -> list[str]:
    """Return the values that the literal at `steps` may have."""
    found = _type_at(wanted, steps)
    return [str(value) for value in found.values] if isinstance(found, inspect.LiteralType) else []


def _type_at(wanted: type, steps: list[str | int | None]) -> inspect.Type | None:
    """Return the type at `steps`; None if there is none, for a field's name can look like steps."""
    current: inspect.Type | None = inspect.type_info(wanted)
    for step in steps:
        current = _struct_or_list(current)
        if isinstance(current, inspect.ListType):
            current = current.item_type
        elif isinstance(current, inspect.StructType):
            current = next((f.type for f in current.fields if f.encode_name == step), None)
    return current


def _struct_or_list(info: inspect.Type | None) -> inspect.Type | None:
    if isinstance(info, inspect.UnionType):
        for choice in info.types:
            if isinstance(choice, inspect.StructType | inspect.ListType):
                return choice
    return info
