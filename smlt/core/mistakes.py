"""What pydantic found wrong, in plain words: one Problem a key, with what it must be, what it is, and an example."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from smlt.core.errors import Problem, nearest
from smlt.core.layers import spell

Path = tuple[str | int, ...]

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    data: Any,
    *,
    prefix: tuple[str, ...] = (),
    origin_of: Callable[[Path], str] = lambda _: "",
    unknown_hint: Callable[[Path], str] = lambda _: "",
) -> list[Problem]:
    """One Problem for each key that a model refused.

    Args:
        error: what the model raised.
        model: the model.
        data: what it was given.
        prefix: where the model stands in the configuration.
        origin_of: where a key, with the prefix, was set.
        unknown_hint: a hint for an unknown key that resembles none of its neighbours.
    """
    groups: dict[Path, list[tuple[int, ErrorDetails]]] = {}
    for detail in error.errors(include_url=False):
        path, tags = _path_in(data, detail)
        groups.setdefault(path, []).append((tags, detail))
    problems = []
    for path, details in groups.items():
        # A branch of a union whose outer shape fits reports deeper inside: what the other branches say is noise.
        if any(len(other) > len(path) and other[: len(path)] == path for other in groups) and details[0][0]:
            continue
        whole = (*prefix, *path)
        message, hint = _words([detail for _, detail in details], model, path, whole, unknown_hint)
        problems.append(Problem(_spell(whole), origin_of(whole), message, hint))
    return problems


def annotation_at(model: type[BaseModel], path: Sequence[str | int]) -> Any:
    """The declared type at a key of a model, `Annotated` and `None` stripped; `Any` where nothing is declared."""
    here: Any = model
    for part in path:
        fields = getattr(here, "model_fields", {})
        if isinstance(part, int):
            items = [item for option in options_of(here) for item in typing.get_args(option) if item is not Ellipsis]
            here = items[0] if items else Any
        elif typing.get_origin(here) is dict:
            here = typing.get_args(here)[1]
        elif part not in fields:
            return Any
        else:
            here = fields[part].annotation
        choices = options_of(here)
        here = choices[0] if len(choices) == 1 else here
    return here


def options_of(annotation: Any) -> list[Any]:
    """The alternatives of a type, flat: of `Annotated[int, …] | list[X] | None` these are int and list[X]."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return options_of(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [option for item in typing.get_args(annotation) for option in options_of(item)]
    return [] if annotation is type(None) else [annotation]


def _path_in(data: Any, detail: ErrorDetails) -> tuple[Path, int]:
    """The keys of an error's location that are in the data, and how many union tags were between or behind them."""
    path: list[str | int] = []
    tags = 0
    location = detail["loc"]
    for position, part in enumerate(location):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        )
        if inside:
            path.append(part)
            data = data[part]
        elif detail["type"] == "missing" and position == len(location) - 1:
            path.append(part)
        else:
            tags += 1
    return tuple(path), tags


def _words(
    details: list[ErrorDetails],
    model: type[BaseModel],
    path: Path,
    whole: Path,
    unknown_hint: Callable[[Path], str],
) -> tuple[str, str]:
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        what = "no such section" if len(whole) == 1 else "no such key"
        return what, _neighbour(model, path) or unknown_hint(whole) or _all_known(model, path)
    if "missing" in kinds:
        return "is missing", _example(model, path, whole)
    said = [str(detail["ctx"]["error"]) for detail in details if detail["type"] == "value_error"]
    expected = dict.fromkeys(
        _EXPECTED[detail["type"]].format(**detail.get("ctx", {})) for detail in details if detail["type"] in _EXPECTED
    )
    value = details[0]["input"]
    if said:
        return "; ".join(dict.fromkeys(said)) + "".join(f", or {other}" for other in expected), ""
    if expected:
        return f"must be {' or '.join(expected)}, not {shown(value)}", _example(model, path, whole)
    message = details[0]["msg"]
    return message[:1].lower() + message[1:], _example(model, path, whole)


def _known(model: type[BaseModel], path: Path) -> list[str]:
    parent = annotation_at(model, path[:-1])
    return list(getattr(parent, "model_fields", {}))


def _neighbour(model: type[BaseModel], path: Path) -> str:
    close = get_close_matches(str(path[-1]), _known(model, path), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def _all_known(model: type[BaseModel], path: Path) -> str:
    return nearest(str(path[-1]), _known(model, path))


def _example(model: type[BaseModel], path: Path, whole: Path) -> str:
    parent = annotation_at(model, path[:-1]) if path else None
    field = getattr(parent, "model_fields", {}).get(path[-1]) if path else None
    if field is None or not field.examples:
        return ""
    return f"like {whole[-1]} = {_toml(field.examples[0])}"


def shown(value: Any) -> str:
    """A value as TOML would write it, cut where it is long."""
    text = _toml(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{spell([str(key)])} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, (bool, float)) else str(value)


def _spell(path: Path) -> str:
    """`job.global_batch[0].size`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else ("." if text else "") + spell([part])
    return text
