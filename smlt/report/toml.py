"""Plain data as TOML, for a job that is to be read again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def toml_of(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of keys; what is None is left out, tables within a section are written in one line.

    Raises:
        ValueError: TOML has nothing for a value.
    """
    lines: list[str] = []
    for section, values in sections.items():
        lines += [f"[{_key(section)}]", *(f"{_key(key)} = {_value(value)}" for key, value in _set(values)), ""]
    return "\n".join(lines)


def _set(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in values.items() if value is not None]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # a JSON string is a TOML one, but for this character
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in _set(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ValueError(f"TOML has no {type(value).__name__}")
