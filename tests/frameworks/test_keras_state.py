"""A step is a transaction: it leaves nothing behind until it is committed, and it repeats; state goes round exactly."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fleet import Fleet, copied, raw, whole
from keras import layers
from keras_models import Classifier, Normed, cross_entropy
from safetensors.numpy import save_file

from smlt.core.errors import TaskError
from smlt.core.task import State
from smlt.frameworks.keras import load_model


class Noisy(Normed):
    """With randomness and a variable that the task itself owns."""

    def __init__(self) -> None:
        self.calls = 0

    def build_model(self) -> keras.Model:
        self.noise = keras.random.SeedGenerator(1)
        self.heard = tf.Variable(0.0)
        return super().build_model()

    def training_step(self, model: keras.Model, batch: Any) -> Any:
        x, y = batch
        noise = keras.random.normal((6,), seed=self.noise)
        self.heard.assign_add(noise[0])
        return super().training_step(model, (x + noise, y))

    def before_optimizer_step(self, model: keras.Model) -> None:
        self.calls += 1

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls, "pair": (1, 2.5), "big": 1 << 70, "ema": np.full(3, self.calls), 7: None} | {
            "scalar": tf.constant(2.0)
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]
        assert (state["pair"], state["big"], state[7], state["scalar"].shape) == ((1, 2.5), 1 << 70, None, ())
        np.testing.assert_array_equal(state["ema"], np.full(3, self.calls))


def test_a_computed_step_shows_nowhere_and_repeats_to_the_bit() -> None:
    fleet = Fleet(Noisy, micro_batch=3).run(2)
    before = whole(fleet)
    first, losses = fleet.compute()
    assert whole(fleet) == before
    assert float(fleet.tasks[0].heard) == 0.0
    for rank in fleet.ranks:
        rank.forget()
    again, _ = fleet.compute()
    assert [region.tobytes() for part in first for region in part] == [
        region.tobytes() for part in again for region in part
    ]
    undisturbed = Fleet(Noisy, micro_batch=3).run(3)
    fleet.commit(again, losses)
    assert whole(fleet) == whole(undisturbed)


def test_random_numbers_differ_between_ranks_steps_and_micro_batches() -> None:
    drawn: set[float] = set()

    class Drawing(Classifier):
        def build_model(self) -> keras.Model:
            self.noise = keras.random.SeedGenerator(1)
            return super().build_model()

        def training_step(self, model: keras.Model, batch: Any) -> Any:
            tf.py_function(lambda value: drawn.add(float(value)), [keras.random.normal((), seed=self.noise)], [])
            return super().training_step(model, batch)

    fleet = Fleet(Drawing, ranks=2, micro_batch=2)
    drawn.clear()
    fleet.run(3)
    assert len(drawn) == 3 * 2 * 2


def test_dropout_of_different_layers_differs_though_their_seeds_are_set_together() -> None:
    class Twice(Classifier):
        def build_model(self) -> keras.Model:
            inputs = keras.Input((6,))
            ones = keras.ops.ones_like(inputs)
            both = layers.Concatenate()([layers.Dropout(0.5)(ones), layers.Dropout(0.5)(ones)])
            model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([inputs, both])))
            self.both = keras.Model(inputs, both)
            model.compile("adam", cross_entropy())
            return model

        def training_step(self, model: keras.Model, batch: Any) -> Any:
            pair = self.both(batch[0], training=True)
            same = keras.ops.all(keras.ops.equal(pair[:, :6], pair[:, 6:]))
            return super().training_step(model, batch) + keras.ops.where(same, float("nan"), 0.0)

    assert np.isfinite(Fleet(Twice).run(2).losses[-1].mean)


def test_training_goes_on_from_a_saved_state_to_the_bit() -> None:
    first = Fleet(Noisy, ranks=2).run(4)
    second = Fleet(Noisy, ranks=2).go_on_from(first).run(3)
    first.run(3)
    assert whole(second) == whole(first)
    assert second.losses == first.losses[4:]
    assert second.tasks[1].calls == 7


def test_a_saved_state_stays_what_it_was_while_the_next_step_is_committed() -> None:
    fleet = Fleet(Classifier).run(1)
    state = fleet.ranks[0].shared_state()
    before = raw(state.arrays)
    fleet.run(2)
    assert raw(state.arrays) == before


class Recurrent(Classifier):
    """Layers in layers, and some made in another order than they are used."""

    def build_model(self) -> keras.Model:
        inputs = keras.Input((6,))
        last, first = layers.Dense(3), layers.Dense(6)
        inner = keras.Sequential([layers.Reshape((3, 2)), layers.Bidirectional(layers.SimpleRNN(2, dropout=0.1))])
        model = keras.Model(inputs, last(inner(first(inputs))))
        model.compile("adam", cross_entropy())
        return model


def test_names_are_those_of_a_fresh_process_whatever_was_built_before() -> None:
    def used_up(task: Recurrent) -> keras.Model:
        for _ in range(9):
            layers.Dense(1)
        keras.Sequential([keras.Input((2, 2)), layers.Bidirectional(layers.SimpleRNN(1, dropout=0.1))])
        return Recurrent.build_model(task)

    later = type("Later", (Recurrent,), {"build_model": used_up})
    names = list(Fleet(later).ranks[0].shared_state().arrays)
    keras.utils.clear_session(free_memory=False)
    fleet = Fleet(Recurrent)
    assert list(fleet.ranks[0].shared_state().arrays) == names
    assert list(fleet.ranks[0].parameters()) == [each.path for each in fleet.tasks[0].model.trainable_variables]
    assert "model/sequential/bidirectional/forward_simple_rnn/simple_rnn_cell/kernel" in names
    assert "model/seed_generator_1/seed_generator_state" in names
    assert "optimizer/dense_1/kernel/velocity" in names


def test_names_that_the_user_gave_stay() -> None:
    class Named(Classifier):
        def build_model(self) -> keras.Model:
            inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="block_7"), layers.Dense(3)], name="net")
            inner.compile("sgd", cross_entropy())
            return inner

    assert list(Fleet(Named).ranks[0].parameters()) == [
        "net/block_7/kernel",
        "net/block_7/bias",
        "net/dense/kernel",
        "net/dense/bias",
    ]


def test_a_state_that_does_not_fit_is_refused_before_anything_changes() -> None:
    fleet = Fleet(Classifier).run(1)
    before = whole(fleet)
    good = copied(fleet.ranks[0].shared_state())
    kernel = "model/sequential/dense/kernel"
    lacking = {name: array for name, array in good.arrays.items() if name != kernel}
    for arrays, message in (
        (lacking, f"lacks {kernel}"),
        (good.arrays | {"model/extra": np.zeros(1)}, "has model/extra, which the task has not"),
        (good.arrays | {kernel: np.zeros((6, 16), np.float32)}, r"is float32\[6, 16\], but float32\[6, 17\]"),
        (good.arrays | {kernel: np.zeros((6, 17))}, r"is float64\[6, 17\]"),
    ):
        with pytest.raises(TaskError, match=message):
            fleet.ranks[0].load_shared_state(State(arrays, good.extra))
    assert whole(fleet) == before


def test_user_state_that_cannot_be_saved_is_refused() -> None:
    class Odd(Classifier):
        def state(self) -> dict[str, Any]:
            return {"function": print}

        def load_state(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(TaskError, match="user/function holds a builtin_function_or_method"):
        Fleet(Odd).ranks[0].shared_state()


def test_a_trained_model_is_read_back_from_its_file(tmp_path: Any) -> None:
    fleet = Fleet(Normed).run(3)
    arrays, aliases = fleet.ranks[0].model_arrays()
    assert aliases == {}
    assert not any("seed_generator" in name for name in arrays)
    path = tmp_path / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    fresh = load_model(path, Normed().build_model())
    x = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(fresh(x), fleet.tasks[0].model(x))
    other = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(TaskError, match="which the task has not"):
        load_model(path, other)
    with pytest.raises(TaskError, match="there is no model at"):
        load_model(tmp_path / "none.safetensors", other)
