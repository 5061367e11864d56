"""One worker is a plain Keras loop, bit for bit; and what may differ by rounding only."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fleet import Fleet, raw
from keras_models import Classifier, SumClassifier, Unused

from smlt.core.task import Array, seed_of
from smlt.frameworks.keras import KerasTask

SEED, STEPS, BATCH = 3, 12, 8


def plain(task: KerasTask) -> tuple[keras.Model, tuple[Array, Array], list[Array]]:
    """A model and its batches, as a user without smlt would make them."""
    keras.utils.set_random_seed(SEED)
    task.total_steps = STEPS
    data = task.train_data()
    orders = [np.random.default_rng(seed_of(SEED, epoch)).permutation(len(data[0])) for epoch in range(4)]
    return task.build_model(), data, [order[at : at + BATCH] for order in orders for at in range(0, len(order), BATCH)]


def weights_of(model: keras.Model) -> list[bytes]:
    return [np.asarray(variable.value).tobytes() for variable in model.weights]


@pytest.mark.parametrize("task", [Classifier, SumClassifier, Unused])
def test_one_worker_equals_a_loop_written_by_hand(task: type[KerasTask]) -> None:
    fleet = Fleet(task, seed=SEED, steps=STEPS, batch=BATCH).run()
    user = task()
    model, (x, y), batches = plain(user)
    trained = model.trainable_variables
    model.optimizer.build(trained)

    @tf.function
    def gradients_of(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = user.training_step(model, (x, y))
            if task is SumClassifier:
                loss = loss.sum / loss.weight
        return loss, tape.gradient(loss, trained)

    @tf.function
    def apply(gradients: Any) -> None:
        used = [pair for pair in zip(gradients, trained, strict=True) if pair[0] is not None]
        model.optimizer.apply_gradients(used)

    losses = []
    for rows in batches[:STEPS]:
        loss, gradients = gradients_of(tf.constant(x[rows]), tf.constant(y[rows]))
        apply(gradients)
        losses.append(float(loss))
    assert [np.float32(loss.mean) for loss in fleet.losses] == losses
    assert weights_of(fleet.tasks[0].model) == weights_of(model)


def test_one_worker_is_model_fit_up_to_rounding() -> None:
    fleet = Fleet(Classifier, seed=SEED, steps=STEPS, batch=BATCH).run()
    model, (x, y), batches = plain(Classifier())
    losses = []
    for rows in batches[:STEPS]:
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x[rows], y[rows])[0]))
    assert [loss.mean for loss in fleet.losses] == pytest.approx(losses, rel=1e-5)


def test_a_variable_that_nobody_uses_is_not_even_decayed() -> None:
    fleet = Fleet(Unused, ranks=2, steps=1)
    assert fleet.shapes[0].parameters == 5 * 2 + 6 * 3 + 3
    np.testing.assert_array_equal(fleet.run().ranks[1].parameters()["sequential/spare/spare"], np.ones((5, 2)))


def test_micro_batches_change_no_more_than_rounding() -> None:
    whole, pieces = Fleet(SumClassifier).run(), Fleet(SumClassifier, micro_batch=3).run()
    for mine, other in zip(whole.losses, pieces.losses, strict=True):
        assert mine.mean == pytest.approx(other.mean, rel=1e-5)
        assert mine.weight == other.weight


def test_gradients_are_clipped_by_their_global_norm() -> None:
    seen: list[float] = []

    class Watched(Classifier):
        def before_optimizer_step(self, model: keras.Model) -> None:
            seen.append(float(np.sqrt(sum(np.sum(np.square(each)) for each in self.gradients))))
            assert (self.step, self.epoch) == (len(seen) - 1, 0)

    Fleet(Watched, steps=2).run()
    free, seen[:] = list(seen), []
    Fleet(Watched, steps=2, clip_norm=0.25).run()
    assert min(free) > 0.25
    assert seen == pytest.approx([0.25, 0.25], rel=1e-5)


def test_the_user_has_the_last_word_on_the_gradients() -> None:
    class Held(Classifier):
        def before_optimizer_step(self, model: keras.Model) -> None:
            for gradient in self.gradients:
                gradient[:] = 0

        def build_model(self) -> keras.Model:
            model = super().build_model()
            model.compile(keras.optimizers.SGD(0.1), model.loss)
            return model

    fleet = Fleet(Held)
    before = raw(fleet.ranks[0].parameters())
    assert raw(fleet.run(2).ranks[0].parameters()) == before


def test_bf16_keeps_float32_variables_and_learns() -> None:
    fleet = Fleet(Classifier, ranks=2, steps=30, precision="bf16").run()
    assert fleet.tasks[0].model.layers[0].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert {array.dtype for array in fleet.ranks[0].parameters().values()} == {np.dtype(np.float32)}
    assert fleet.losses[-1].mean < 0.7 * fleet.losses[0].mean


def test_a_model_that_runs_eagerly_gives_the_same_course() -> None:
    class Eager(SumClassifier):
        def build_model(self) -> keras.Model:
            model = super().build_model()
            model.run_eagerly = True
            return model

        def training_step(self, model: keras.Model, batch: Any) -> Any:
            assert batch[0].numpy().shape[1] == 6
            return super().training_step(model, batch)

    compiled, eager = Fleet(SumClassifier, steps=3).run(), Fleet(Eager, steps=3).run()
    assert eager.losses[-1].mean == pytest.approx(compiled.losses[-1].mean, rel=1e-5)
    assert eager.evaluate() == pytest.approx(compiled.evaluate(), rel=1e-4)
