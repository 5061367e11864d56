"""Names of variables that do not depend on what else a process has built: Keras numbers `dense_7` all its life."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_COUNTER = re.compile(r"_\d+$")
_SEEDS = re.compile(r"seed_generator(_\d+)?$")


def model_names(model: Any) -> dict[str, Any]:
    """The model's variables, random states among them, by their paths as a fresh process would have named them.

    Keras' own names of layers are counted anew, in the order of the variables; names that the user gave stay.
    """
    automatic = _automatic_names(model)
    counted: dict[str, str] = {}
    uses: dict[str, int] = {}

    def fresh(part: str) -> str:
        base = automatic.get(part) or ("seed_generator" if _SEEDS.match(part) else None)
        if base is None:
            return part
        if part not in counted:
            place = uses.get(base, 0)
            uses[base] = place + 1
            counted[part] = f"{base}_{place}" if place else base
        return counted[part]

    return _unique(model.variables, lambda variable: "/".join(fresh(part) for part in variable.path.split("/")))


def optimizer_names(optimizer: Any, model: Any) -> dict[str, Any]:
    """The optimizer's variables: `iteration`, `learning_rate`, and `<variable of the model>/<slot>`."""
    stable = {id(variable): name for name, variable in model_names(model).items()}
    slots = {each.path.replace("/", "_"): stable[id(each)] for each in model.trainable_variables}

    def name_of(variable: Any) -> str:
        own = str(variable.path).rpartition("/")[2]
        fitting = max((path for path in slots if own.startswith(f"{path}_")), key=len, default=None)
        return own if fitting is None else f"{slots[fitting]}/{own[len(fitting) + 1 :]}"

    return _unique(optimizer.variables, name_of)


def _automatic_names(model: Any) -> dict[str, str]:
    """Names of layers that Keras made, and what of; a user who names a Dense `dense_7` cannot be told apart."""
    found = {}
    for layer in model._flatten_layers():
        base = _COUNTER.sub("", layer.name)
        if base == _snake_case(type(layer).__name__):
            found[layer.name] = base
    return found


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
