"""A model's variables that are not trained: kept from what a forward pass does to them, contributed, agreed upon.

Float ones (batch-norm statistics) are averaged over the ranks; all others are rank 0's. One that no rank changed stays
as it is, as a constant must not drift by rounding. Variables of frozen layers do not travel at all. The states of
SeedGenerators are set before every forward pass and otherwise stay as `build_model` left them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.keras.names import model_names
from smlt.frameworks.keras.seeding import generator_state
from smlt.frameworks.keras.variables import Bulk, raw

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
        for each in others:
            if tf.as_dtype(each.dtype).is_floating or not (
                tf.as_dtype(each.dtype).is_integer or tf.as_dtype(each.dtype).is_bool
            ):
                raise TaskError(
                    f"the variable {names[id(each)]} is {each.dtype}",
                    "variables that are not trained are float32, integers or booleans",
                )
        self._float_count = len(floats)
        self._bulk = Bulk(raw([*floats, *others]))
        self._frozen, self._frozen_names = Bulk(raw(frozen)), [names[id(each)] for each in frozen]
        self._seeds = Bulk(raw(_seed_states(model)))
        self._known = {
            id(each) for each in raw([*model.variables, *model.metrics_variables, *model.optimizer.variables])
        }
        self._foreign: list[Bulk] = []
        self._kept: _Kept | None = None
        sizes = [each.shape.num_elements() for each in self._bulk.variables]
        self.floats, self.words = sum(sizes[: self._float_count]), sum(sizes[self._float_count :])
        self.count = len(sizes)

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
        for bulk in (self._bulk, self._seeds, *self._foreign):
            self._kept.keep(bulk)
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
        before = self._kept.values_of(self._bulk)
        for place, (piece, old, new) in enumerate(
            zip(self._pieces(floats, words), before, self._bulk.read(), strict=True)
        ):
            changed[place] = not _same(old, new)
            if first or place < self._float_count:
                piece[:] = new.reshape(-1)

    def agree(self, floats: Array, words: Array, changed: Array, world_size: int) -> None:
        """Take over the sums over all ranks: means of the floats, rank 0's others, where any rank changed them."""
        if not changed.any():
            return
        values = self._bulk.read()
        for place, piece in enumerate(self._pieces(floats, words)):
            if changed[place]:
                mean = piece / np.float32(world_size) if place < self._float_count else piece
                values[place] = mean.astype(values[place].dtype).reshape(values[place].shape)
        self._bulk.write(values)

    def _pieces(self, floats: Array, words: Array) -> list[Array]:
        sizes = [each.shape.num_elements() for each in self._bulk.variables]
        ends = np.cumsum(sizes[: self._float_count])[:-1], np.cumsum(sizes[self._float_count :])[:-1]
        pieces = [np.split(memory, at) if memory.size else [] for memory, at in zip((floats, words), ends, strict=True)]
        return [*pieces[0], *pieces[1]]


class _Kept:
    """Values to go back to."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Bulk, list[Array]]] = {}

    def keep(self, bulk: Bulk) -> None:
        self._values[id(bulk)] = (bulk, bulk.read())

    def values_of(self, bulk: Bulk) -> list[Array]:
        return self._values[id(bulk)][1]

    def restore(self) -> None:
        for bulk, values in self._values.values():
            bulk.write(values)


def _travelling_and_frozen(model: Any) -> tuple[list[Any], list[Any]]:
    """The untrained variables: those that a forward pass may change, and those of layers with trainable = False."""
    frozen = {id(each) for layer in model._flatten_layers() if not layer.trainable for each in layer.weights}
    trained = {id(each) for each in model.trainable_variables}
    untrained = [each for each in model.weights if id(each) not in trained]
    return [each for each in untrained if id(each) not in frozen], [each for each in untrained if id(each) in frozen]


def _seed_states(model: Any) -> list[Any]:
    weights = {id(each) for each in model.weights}
    return [each for each in model.variables if id(each) not in weights]


def _same(old: Array, new: Array) -> bool:
    return old.tobytes() == new.tobytes()
