"""The kinds of data that a task may give, all picked by index; and those it may not."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fleet import HERE, Fleet
from keras_models import Classifier, points

from smlt.core.errors import TaskError
from smlt.core.task import TaskContext
from smlt.frameworks.keras import data as data_module
from smlt.frameworks.keras.data import Batches, batches_of, epoch_order
from smlt.frameworks.keras.environment import start

ROWS = np.array([3, 0, 36], np.int64)


@pytest.fixture(autouse=True)
def _started() -> None:
    """TensorFlow has its threads before a test makes a tensor, whichever test comes first."""
    start(TaskContext({}, 3, 0, 1, HERE))


def given(data: Any, seed: int = 3) -> Batches:
    """Batches of what train_data returns."""
    task = Classifier()
    task.context = TaskContext({}, seed, 0, 1, HERE)
    return batches_of(task, "train_data", data)


class Items:
    """A map-style object whose examples are a little random."""

    def __len__(self) -> int:
        return 37

    def __getitem__(self, index: int) -> Any:
        x, y = points()
        return {"x": x[index] + np.random.normal() + random.random(), "at": index}, y[index]


class AllAtOnce(Items):
    def __getitems__(self, indices: list[int]) -> Any:
        return [({"x": points()[0][index], "at": index}, points()[1][index]) for index in indices]


def test_arrays_are_picked_and_floats_are_keras_floats() -> None:
    x, y = points()
    batch = given(({"a": x.astype(np.float64), "b": (y, y.astype(str))}, tf.constant(y))).fetch(ROWS, 0)
    assert batch[0]["a"].dtype == np.float32
    np.testing.assert_array_equal(batch[0]["a"], x[ROWS])
    assert batch[0]["b"][0].dtype == np.int64
    np.testing.assert_array_equal(batch[1], y[ROWS])


def test_items_are_stacked_and_repeat_by_their_epoch_and_index() -> None:
    batches = given(Items())
    first, second, other = batches.fetch(ROWS, 0), batches.fetch(ROWS[::-1], 0), batches.fetch(ROWS, 1)
    assert first[0]["x"].shape == (3, 6)
    np.testing.assert_array_equal(first[0]["at"], ROWS)
    np.testing.assert_array_equal(first[0]["x"], second[0]["x"][::-1])
    assert not np.array_equal(first[0]["x"], other[0]["x"])
    np.testing.assert_array_equal(given(AllAtOnce()).fetch(ROWS, 0)[0]["x"], points()[0][ROWS])


def test_a_dataset_is_read_once_into_memory() -> None:
    x, y = points()
    dataset = tf.data.Dataset.from_tensor_slices(({"x": x}, y)).map(lambda a, b: ({"x": a["x"] * 2}, b))
    batches = given(dataset)
    assert batches.length == 37
    batch = batches.fetch(ROWS, 0)
    np.testing.assert_array_equal(batch[0]["x"], 2 * x[ROWS])
    np.testing.assert_array_equal(batch[1], y[ROWS])


def test_all_kinds_train_alike() -> None:
    class FromItems(Classifier):
        def train_data(self) -> Any:
            return list(zip(*points(), strict=True))

    class FromDataset(Classifier):
        def train_data(self) -> Any:
            return tf.data.Dataset.from_tensor_slices(points())

    arrays, items, dataset = (Fleet(task, steps=3).run() for task in (Classifier, FromItems, FromDataset))
    assert arrays.losses == items.losses == dataset.losses


class Sequence(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return points()


X, Y = points()
SLICES = tf.data.Dataset.from_tensor_slices


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:-1]), r"arrays of different lengths: \[36, 37\]"),
        ((X, 3), "a int where an array of examples is expected"),
        ((X, np.array([None] * 37)), "an array of Python objects"),
        (iter([1]), "a list_iterator, which has no length or no examples to pick"),
        (Sequence(), "a Sequence, which makes batches of its own"),
        (lambda: SLICES((X, Y)).batch(8), "a batched tf.data.Dataset"),
        (lambda: SLICES((X, Y)).repeat(), "an infinite tf.data.Dataset"),
        (lambda: SLICES((X, Y)).take(0), "train_data has no examples"),
        (
            lambda: tf.data.Dataset.range(1, 4).map(lambda length: (tf.range(length), length)),
            r"stacking train_data\(\)'s examples raised ValueError",
        ),
    ],
)
def test_other_data_are_refused(data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        given(data() if callable(data) else data)


def test_a_dataset_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MAX_DATASET_BYTES", 500)
    with pytest.raises(TaskError, match=r"a tf\.data\.Dataset of more than 500") as caught:
        given(SLICES((X, Y)))
    assert "map-style" in caught.value.hint


def test_items_of_different_shapes_are_refused() -> None:
    ragged = given([(np.zeros(size), 0) for size in (3, 4)])
    with pytest.raises(TaskError, match=r"stacking train_data\(\)'s examples raised ValueError") as caught:
        ragged.fetch(np.arange(2), 0)
    assert "pad" in caught.value.hint


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([], "no indices for epoch 0"),
        ([0, 37], "indices from 0 to 37"),
        ([0.5], "float64"),
        ([[1]], r"int64\[1, 1\]"),
    ],
)
def test_a_sampler_gives_indices(order: Any, message: str) -> None:
    task = Classifier()
    task.context = TaskContext({}, 3, 0, 1, HERE)
    task.sampler = lambda rng, epoch: np.array(order, None if order else np.int64)  # type: ignore[method-assign]
    with pytest.raises(TaskError, match=message):
        epoch_order(task, 37, 0)


def test_a_sampler_may_visit_fewer_examples() -> None:
    class Half(Classifier):
        def sampler(self, rng: np.random.Generator, epoch: int) -> Any:
            return rng.permutation(37)[:20]

    fleet = Fleet(Half)
    assert fleet.shapes[0].examples == 20
    assert list(fleet.ranks[0].order(0)) != list(fleet.ranks[0].order(1))
