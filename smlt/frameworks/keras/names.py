"""Names of variables that do not depend on what else a process has built: Keras numbers `dense_7` all its life."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_COUNTED = re.compile(r"(.*?)(?:_(\d+))?$")
_SIDES = re.compile(r"^(forward|backward)_")
_SEEDS = re.compile(r"seed_generator(_\d+)?$")


def model_names(model: Any) -> dict[str, Any]:
    """The model's variables, random states among them, by their paths as a fresh process would have named them.

    Layers that Keras named are counted anew, in the order in which they were made; names that the user gave stay.
    """
    fresh = _counted_anew(model)
    return _unique(
        model.variables, lambda variable: "/".join(fresh.get(part, part) for part in variable.path.split("/"))
    )


def optimizer_names(optimizer: Any, model: Any) -> dict[str, Any]:
    """The optimizer's variables: `iteration`, `learning_rate`, and `<variable of the model>/<slot>`."""
    stable = {id(variable): name for name, variable in model_names(model).items()}
    slots = {each.path.replace("/", "_"): stable[id(each)] for each in model.trainable_variables}

    def name_of(variable: Any) -> str:
        own = str(variable.path).rpartition("/")[2]
        fitting = max((path for path in slots if own.startswith(f"{path}_")), key=len, default=None)
        return own if fitting is None else f"{slots[fitting]}/{own[len(fitting) + 1 :]}"

    return _unique(optimizer.variables, name_of)


def _counted_anew(model: Any) -> dict[str, str]:
    """New names of what Keras named itself; a user who names a Dense `dense_7` cannot be told apart."""
    groups: dict[str, dict[str, int]] = {}
    layers = [(layer.name, _snake_case(type(layer).__name__)) for layer in model._flatten_layers()]
    seeds = [part for each in model.variables for part in each.path.split("/") if _SEEDS.match(part)]
    for name, kind in [*layers, *((seed, "seed_generator") for seed in seeds)]:
        match = _COUNTED.match(name)
        assert match
        if _SIDES.sub("", match[1]) == kind:  # Bidirectional names its two layers forward_… and backward_…
            groups.setdefault(match[1], {})[name] = int(match[2] or 0)
    return {
        name: f"{base}_{place}" if place else base
        for base, names in groups.items()
        for place, name in enumerate(sorted(names, key=names.__getitem__))
    }


def _snake_case(name: str) -> str:
    """As Keras derives a layer's name from its class."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _unique(variables: Sequence[Any], name_of: Callable[[Any], str]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for variable in variables:
        name, place = name_of(variable), 1
        unique = name
        while unique in named:
            place += 1
            unique = f"{name}.{place}"
        named[unique] = variable
    return named
