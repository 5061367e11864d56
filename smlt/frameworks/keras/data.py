"""From indices to batches: arrays, a map-style object or a tf.data.Dataset, picked by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array, Indices, seed_of
from smlt.core.units import format_bytes
from smlt.frameworks.hooks import checked_order
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.seeding import seed_item

if TYPE_CHECKING:
    from smlt.frameworks.keras.task import KerasTask

MAX_DATASET_BYTES = 2 * 2**30
KINDS = (
    "return (x, y) or (x, y, sample_weight) of arrays, a map-style object (__len__, __getitem__), or a tf.data.Dataset"
)


class Batches(ABC):
    """Batches of data.

    Attributes:
        length: number of examples.
    """

    length: int

    @abstractmethod
    def fetch(self, indices: Indices, epoch: int) -> Any:
        """The batch of these examples: numpy arrays in the structure of the data; floats as Keras' floatx."""


class ArrayBatches(Batches):
    """Arrays of one length, nested in tuples, lists and dicts."""

    def __init__(self, hook: str, data: Any) -> None:
        self._data = keras.tree.map_structure(lambda leaf: _array(hook, leaf), data)
        lengths = {len(leaf) for leaf in keras.tree.flatten(self._data)}
        if len(lengths) != 1:
            raise TaskError(f"{hook} returned arrays of different lengths: {sorted(lengths)}", KINDS)
        self.length = lengths.pop()

    def fetch(self, indices: Indices, epoch: int) -> Any:
        """Rows of all arrays."""
        return keras.tree.map_structure(lambda leaf: _standard(leaf[indices]), self._data)


class ItemBatches(Batches):
    """A map-style object; its items are stacked."""

    def __init__(self, task: KerasTask, hook: str, data: Any) -> None:
        self._task, self._hook, self._data = task, hook, data
        with blame(task, hook, f"len({hook}())"):
            self.length = len(data)

    def fetch(self, indices: Indices, epoch: int) -> Any:
        """Stacked items.

        Python's and numpy's random generators are seeded from (seed, epoch, index) before each item; an object with
        `__getitems__` is asked for all at once, so they are seeded once, by the first index.
        """
        items = self._items([int(index) for index in indices], epoch)
        hint = "give every example the same structure and shapes; pad what varies"
        with blame(self._task, self._hook, f"stacking {self._hook}()'s examples", hint):
            return keras.tree.map_structure(lambda *leaves: _standard(np.stack(leaves)), *items)

    def _items(self, indices: list[int], epoch: int) -> list[Any]:
        seed, hook, data = self._task.context.seed, self._hook, self._data
        if hasattr(data, "__getitems__"):
            seed_item(seed_of(seed, epoch, indices[0]))
            with blame(self._task, hook, f"{hook}().__getitems__"):
                return list(data.__getitems__(indices))
        items = []
        for index in indices:
            seed_item(seed_of(seed, epoch, index))
            with blame(self._task, hook, f"{hook}()[{index}]"):
                items.append(data[index])
        return items


def batches_of(task: KerasTask, hook: str, data: Any) -> Batches:
    """Batches of what a hook returned.

    Raises:
        TaskError: it is none of the kinds of data, is infinite or batched, or does not fit into memory.
    """
    if isinstance(data, tf.data.Dataset):
        return ArrayBatches(hook, _materialised(task, hook, data))
    if isinstance(data, keras.utils.PyDataset):
        raise TaskError(f"{hook} returned a {type(data).__name__}, which makes batches of its own", KINDS)
    if isinstance(data, tuple | dict | np.ndarray | tf.Tensor):
        return ArrayBatches(hook, data)
    if hasattr(type(data), "__len__") and hasattr(type(data), "__getitem__"):
        return ItemBatches(task, hook, data)
    raise TaskError(f"{hook} returned a {type(data).__name__}, which has no length or no examples to pick", KINDS)


def epoch_order(task: KerasTask, examples: int, epoch: int) -> Indices:
    """What the user's `sampler` gives, checked.

    Raises:
        TaskError: it is no order of the training data's indices.
    """
    seed = seed_of(task.context.seed, epoch)
    seed_item(seed)
    with blame(task, "sampler"):
        returned = np.asarray(task.sampler(np.random.default_rng(seed), epoch))
    return checked_order(returned, examples, epoch)


def _materialised(task: KerasTask, hook: str, dataset: Any) -> Any:
    """All elements of a dataset, stacked: its order is taken once, and examples are then picked by index."""
    spec = dataset.element_spec
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise TaskError(f"{hook} returned an infinite tf.data.Dataset", "leave out repeat(); epochs are smlt's")
    shapes = [leaf.shape for leaf in tf.nest.flatten(spec)]
    if all(shape.rank and shape[0] is None for shape in shapes):
        raise TaskError(f"{hook} returned a batched tf.data.Dataset", "leave out batch(), or call unbatch()")
    columns: list[list[Array]] = [[] for _ in shapes]
    size = 0
    with blame(task, hook, f"reading {hook}()"):
        for element in dataset.as_numpy_iterator():
            for column, leaf in zip(columns, tf.nest.flatten(element), strict=True):
                column.append(np.asarray(leaf))
                size += column[-1].nbytes
            if size > MAX_DATASET_BYTES:
                raise TaskError(
                    f"{hook} returned a tf.data.Dataset of more than {format_bytes(MAX_DATASET_BYTES)}",
                    "it is read into memory, as examples are picked by index; return a map-style object instead",
                )
    if not columns[0]:
        raise TaskError(f"{hook} has no examples")
    with blame(task, hook, f"stacking {hook}()'s examples", "pad examples to one shape"):
        return tf.nest.pack_sequence_as(spec, [np.stack(column) for column in columns])


def _array(hook: str, leaf: Any) -> Array:
    array = np.asarray(leaf)
    if not array.ndim:
        raise TaskError(f"{hook} returned a {type(leaf).__name__} where an array of examples is expected", KINDS)
    if array.dtype.hasobject:
        raise TaskError(f"{hook} returned an array of Python objects", "give arrays of numbers or strings (dtype str)")
    return array


def _standard(array: Array) -> Array:
    """Floats in Keras' floatx, as `model.fit` does."""
    return array.astype(keras.config.floatx(), copy=False) if np.issubdtype(array.dtype, np.floating) else array
