"""From layers of settings to one job: merged by strength, validated whole, every mistake told at once with its origin.

Pure: reads no file, no environment; `layers.read_layers` does.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from smlt.core.backend import BackendOptions
from smlt.core.errors import ConfigError, PluginError, Problem, nearest
from smlt.core.job import JobSpec
from smlt.core.layers import Layers, Setting, Text, leaves, spell
from smlt.core.mistakes import annotation_at, options_of, problems_of, shown
from smlt.core.plugins import Registry

ALTERNATIVES = (
    (("job", "epochs"), ("job", "steps")),
    (("job", "target", "at_least"), ("job", "target", "at_most")),
)
"""Pairs of keys of which one is given: in a stronger layer it replaces the other."""

Merged = dict[tuple[str, ...], Setting]


@dataclass(frozen=True)
class Settings:
    """A job and where it was said.

    Attributes:
        spec: the job, validated.
        origins: for each key that was set (`job.epochs`), where; what is not in it has its default.
        folder: where the task's file is looked up: the folder of the file that names the task, else the command's.
        set_aside: settings for another backend than the one that was chosen in a stronger layer; not used.
    """

    spec: JobSpec
    origins: Mapping[str, str]
    folder: Path
    set_aside: tuple[Setting, ...] = ()


NO_TASK = "none:None"
"""Stands in `spec.job.task` where no task is given and none was required."""


def resolve(layers: Layers, registry: Registry, *, task_required: bool = True) -> Settings:
    """The job that the layers describe; where no task is required, `spec.job.task` may be `NO_TASK`.

    Raises:
        ConfigError: with one Problem for every mistake found.
    """
    problems = list(layers.problems)
    options = _options_model(layers, registry, problems)
    read = [_read(layer, options, problems) for layer in layers.ordered]
    merged, set_aside = _merge(read)
    if ("job", "task") not in merged:
        merged["job", "task"] = Setting(("job", "task"), NO_TASK, "default", layers.cwd)
        if task_required and not layers.unread:
            hint = 'give `smlt train task.py:Class`, or task = "task.py:Class" in [job] of smlt.toml'
            problems.append(Problem("job.task", "", "no task", hint))
    spec = _validated(merged, options, registry, problems)
    if problems or spec is None:
        raise ConfigError.of(problems)
    folder = merged["job", "task"].folder
    return Settings(spec, {spell(path): item.origin for path, item in merged.items()}, folder, tuple(set_aside))


def _options_model(layers: Layers, registry: Registry, problems: list[Problem]) -> type[BackendOptions] | None:
    """The options of the backend that the strongest layer names; None where there is no such backend."""
    named = [item for layer in layers.ordered for item in reversed(layer) if item.path == ("backend", "name")]
    name: Any = JobSpec.model_fields["backend"].get_default(call_default_factory=True).name
    if named:
        name = next(_read_text(named[0], str)).value
    if not isinstance(name, str):
        return None  # validation says so
    try:
        model: type[BackendOptions] = registry.load("backends", name).Options
    except PluginError as error:
        problems.append(Problem("backend.name", named[0].origin if named else "default", error.message, error.hint))
        return None
    return model


def _read(layer: Sequence[Setting], options: type[BackendOptions] | None, problems: list[Problem]) -> Merged:
    """One layer by key: bare text read by the type of its setting, a list's repeated items gathered."""
    found: Merged = {}
    for given in layer:
        if len(given.path) == 1:
            problems.extend(_stray(given))
            continue
        kind = _kind(given.path, options)
        for item in _read_text(given, kind):
            if _is_list(kind) and isinstance(given.value, Text) and item.path in found:
                item = replace(item, value=[*found[item.path].value, *item.value])
            found[item.path] = item
    return found


def _read_text(item: Setting, kind: Any) -> Iterator[Setting]:
    if not isinstance(item.value, Text):
        yield item
        return
    value = item.value.read()
    if _is_text(kind) and not isinstance(value, str):
        value = str(item.value)
    if _is_list(kind) and not isinstance(value, list):
        value = [value]
    yield from leaves(item.path, value, item.origin, item.folder)


def _kind(path: tuple[str, ...], options: type[BackendOptions] | None) -> Any:
    if path[0] == "backend" and path[1] != "name":
        return annotation_at(options, path[1:]) if options else Any
    return annotation_at(JobSpec, path)


def _is_text(kind: Any) -> bool:
    choices = options_of(kind)
    return bool(choices) and all(
        choice is str or all(isinstance(value, str) for value in typing.get_args(choice) or [0]) for choice in choices
    )


def _is_list(kind: Any) -> bool:
    choices = options_of(kind)
    return len(choices) == 1 and typing.get_origin(choices[0]) in (list, tuple)


def _stray(item: Setting) -> list[Problem]:
    """What is wrong with a key that stands outside every section."""
    name = item.path[0]
    sections = JobSpec.model_fields
    if name in sections:
        if item.value == {}:
            return []
        return [
            Problem(name, item.origin, f"is a section, not {shown(item.value)}", f"write [{name}] and keys below it")
        ]
    home = _home_of(name)
    hint = f"it belongs in [{home}]" if home else nearest(name, list(sections))
    return [Problem(spell(item.path), item.origin, "no such section", hint)]


def _home_of(key: str) -> str:
    """The section that has a key of this name, if just one has."""
    homes = [name for name, field in JobSpec.model_fields.items() if key in _fields(field.annotation)]
    return homes[0] if len(homes) == 1 else ""


def _fields(model: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    return fields


def _merge(layers: Sequence[Merged]) -> tuple[Merged, list[Setting]]:
    """The strongest setting of each key, and what a weaker layer says for another backend."""
    merged: Merged = {}
    meant_for: dict[tuple[str, ...], str | None] = {}
    named: str | None = None
    for layer in reversed(layers):
        _drop_alternatives(merged, layer)
        if ("backend", "name") in layer:
            named = str(layer["backend", "name"].value)
        for path, item in layer.items():
            for other in [other for other in merged if _overlap(path, other)]:
                del merged[other]
            merged[path] = item
            meant_for[path] = named if path[0] == "backend" else None
    set_aside = [item for path, item in merged.items() if meant_for[path] not in (None, named)]
    for item in set_aside:
        del merged[item.path]
    return merged, set_aside


def _drop_alternatives(merged: Merged, stronger: Merged) -> None:
    for pair in ALTERNATIVES:
        for mine, other in (pair, pair[::-1]):
            if mine in stronger and other not in stronger:
                merged.pop(other, None)


def _overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    return a[: len(b)] == b or b[: len(a)] == a


def _validated(
    merged: Merged, options: type[BackendOptions] | None, registry: Registry, problems: list[Problem]
) -> JobSpec | None:
    tree = _tree(merged)
    origin_of = partial(_origin, merged)
    spec = _try(JobSpec, tree, problems, (), origin_of)
    if options is not None:
        given = {key: value for key, value in tree.get("backend", {}).items() if key != "name"}
        _try(options, given, problems, ("backend",), origin_of)
    planner = tree.get("planner", {}).get("name")
    if isinstance(planner, str) and planner not in ("auto", *registry.entries["planners"]):
        hint = nearest(planner, list(registry.entries["planners"]))
        problems.append(
            Problem("planner.name", origin_of(("planner", "name")), f"no planner is called {planner!r}", hint)
        )
    return spec


ModelT = typing.TypeVar("ModelT", bound=BaseModel)


def _try(
    model: type[ModelT],
    data: Any,
    problems: list[Problem],
    prefix: tuple[str, ...],
    origin_of: Callable[[tuple[str | int, ...]], str],
) -> ModelT | None:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(
            problems_of(error, model, data, prefix=prefix, origin_of=origin_of, unknown_hint=_hint_elsewhere)
        )
        return None


def _hint_elsewhere(path: tuple[str | int, ...]) -> str:
    home = _home_of(str(path[-1]))
    return f"it belongs in [{home}]" if home else ""


def _origin(merged: Merged, path: tuple[str | int, ...]) -> str:
    """Where a key was set; of a table, or of a rule over several keys, all places that set a part of it."""
    found = [item.origin for key, item in merged.items() if _overlap(key, tuple(map(str, path)))]
    return ", ".join(dict.fromkeys(found))


def _tree(merged: Merged) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, item in merged.items():
        here = tree
        for part in path[:-1]:
            here = here.setdefault(part, {})
        here[path[-1]] = item.value
    return tree
