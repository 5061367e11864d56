"""A model's variables that are not trained: kept from what a forward pass does to them, contributed, agreed upon.

Float ones (batch-norm statistics) are averaged over the ranks; all others are rank 0's. One that no rank changed stays
as it is, as a constant must not drift by rounding. Variables of frozen layers do not travel at all. The states of
SeedGenerators are set before every forward pass and otherwise stay as `build_model` left them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.keras.names import model_names
from smlt.frameworks.keras.seeding import generator_state
from smlt.frameworks.keras.variables import Bulk, FlatBulk, raw

SEED_STATE = "seed_generator_state"


class Buffers:
    """The untrained variables of a built model.

    Attributes:
        floats: elements that the float variables need in their region.
        words: int64 elements that the others need.
        count: number of variables that travel; each has a flag that says whether it changed.
    """

    def __init__(self, model: Any) -> None:
        names = {id(variable): name for name, variable in model_names(model).items()}
        travelling, frozen = _travelling_and_frozen(model)
        floats = [each for each in travelling if each.dtype == "float32"]
        others = [each for each in travelling if each.dtype != "float32"]
        _check_dtypes({names[id(each)]: each for each in [*others, *frozen]}, {names[id(each)] for each in frozen})
        self._floats, self._others = FlatBulk(raw(floats)), Bulk(raw(others))
        self._frozen, self._frozen_names = Bulk(raw(frozen)), [names[id(each)] for each in frozen]
        self._seeds = Bulk(raw(_seed_states(model)))
        self._known = {
            id(each) for each in raw([*model.variables, *model.metrics_variables, *model.optimizer.variables])
        }
        self._foreign: list[Bulk] = []
        self._kept: _Kept | None = None
        self._sizes = [int(each.shape.num_elements()) for each in self._others.variables]
        self.floats, self.words = sum(self._floats.sizes), sum(self._sizes)
        self.count = len(floats) + len(others)

    def notice(self, used: Sequence[Any]) -> None:
        """Take care, too, of variables that a compiled function uses and the model does not own (a task's own).

        Whatever a forward pass does to them is undone; SeedGenerators among them are seeded like the model's.
        """
        foreign = [each for each in used if id(each) not in self._known]
        self._known |= {id(each) for each in foreign}
        seeds = [each for each in foreign if SEED_STATE in each.name]
        if seeds:
            self._seeds = Bulk([*self._seeds.variables, *seeds])
        if foreign:
            self._foreign.append(Bulk(foreign))
            if self._kept:
                self._kept.keep(self._foreign[-1])

    def seed(self, seed: int) -> None:
        """Set the states of all SeedGenerators, inside `untouched`."""
        states = [
            generator_state(seed, place, each.dtype.as_numpy_dtype) for place, each in enumerate(self._seeds.variables)
        ]
        self._seeds.write(states)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Whatever happens inside, all of these variables are as before at the end."""
        self._kept = _Kept()
        everything: list[Bulk | FlatBulk] = [self._floats, self._others, self._seeds, *self._foreign]
        for each in everything:
            self._kept.keep(each)
        try:
            yield
        finally:
            self._kept.restore()
            self._kept = None

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Raise TaskError if the inside changes a variable of a frozen layer."""
        before = self._frozen.read()
        yield
        for name, old, new in zip(self._frozen_names, before, self._frozen.read(), strict=True):
            if not _same(old, new):
                raise TaskError(
                    f"the frozen layer's variable {name} changes in a forward pass",
                    "leave trainable = True on layers that keep statistics; their weights can be frozen one by one",
                )

    def contribute(self, floats: Array, words: Array, changed: Array, first: bool) -> None:
        """Write the variables as they are now, inside `untouched`.

        Args:
            floats: zeroed float32.
            words: zeroed int64.
            changed: zeroed int64, a flag a variable.
            first: whether this is rank 0.
        """
        assert self._kept
        old, new = self._kept.value_of(self._floats), self._floats.read()
        floats[:] = new
        float_flags, other_flags = self._split_flags(changed)
        different = old.view(np.int32) != new.view(np.int32)
        float_flags[:] = [piece.any() for piece in self._split(different, self._floats.sizes)]
        before, after = self._kept.value_of(self._others), self._others.read()
        other_flags[:] = [not _same(*pair) for pair in zip(before, after, strict=True)]
        if first:
            for piece, value in zip(self._split(words, self._sizes), after, strict=True):
                piece[:] = value.reshape(-1)

    def agree(self, floats: Array, words: Array, changed: Array, world_size: int) -> None:
        """Take over the sums over all ranks: means of the floats, rank 0's others, where any rank changed them."""
        float_flags, other_flags = self._split_flags(changed)
        if float_flags.any():
            moved = np.repeat(float_flags > 0, self._floats.sizes)
            self._floats.write(np.where(moved, floats / np.float32(world_size), self._floats.read()))
        if other_flags.any():
            values = self._others.read()
            for place, piece in enumerate(self._split(words, self._sizes)):
                if other_flags[place]:
                    values[place] = piece.astype(values[place].dtype).reshape(values[place].shape)
            self._others.write(values)

    def read_floats(self) -> Array:
        """The float variables, as one vector."""
        return self._floats.read()

    def write_floats(self, floats: Array) -> None:
        """Take the float variables over."""
        self._floats.write(floats)

    def _split_flags(self, changed: Array) -> tuple[Array, Array]:
        count = len(self._floats.sizes)
        return changed[:count], changed[count:]

    def _split(self, memory: Array, sizes: Sequence[int]) -> list[Array]:
        return np.split(memory, np.cumsum(sizes)[:-1]) if len(sizes) else []


class _Kept:
    """Values to go back to."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Any, Any]] = {}

    def keep(self, variables: Bulk | FlatBulk) -> None:
        self._values[id(variables)] = (variables, variables.read())

    def value_of(self, variables: Bulk | FlatBulk) -> Any:
        return self._values[id(variables)][1]

    def restore(self) -> None:
        for variables, value in self._values.values():
            variables.write(value)


def _travelling_and_frozen(model: Any) -> tuple[list[Any], list[Any]]:
    """The untrained variables: those that a forward pass may change, and those of layers with trainable = False."""
    frozen = {id(each) for layer in model._flatten_layers() if not layer.trainable for each in layer.weights}
    trained = {id(each) for each in model.trainable_variables}
    untrained = [each for each in model.weights if id(each) not in trained]
    return [each for each in untrained if id(each) not in frozen], [each for each in untrained if id(each) in frozen]


def _check_dtypes(variables: Mapping[str, Any], frozen: Set[str]) -> None:
    """Raise TaskError for what cannot be agreed upon, or (bfloat16) not be saved as a numpy array."""
    for name, variable in variables.items():
        dtype = tf.as_dtype(variable.dtype)
        plain = dtype.is_integer or dtype.is_bool
        if not plain and not (name in frozen and np.dtype(dtype.as_numpy_dtype).kind == "f"):
            raise TaskError(
                f"the variable {name} is {dtype.name}",
                "variables that are not trained are float32, integers or booleans; frozen ones also float16 or float64",
            )


def _seed_states(model: Any) -> list[Any]:
    weights = {id(each) for each in model.weights}
    return [each for each in model.variables if id(each) not in weights]


def _same(old: Array, new: Array) -> bool:
    return old.tobytes() == new.tobytes()
