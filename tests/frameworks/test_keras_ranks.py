"""Several workers: the same course, the same state everywhere, statistics agreed upon."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from fleet import Fleet, raw, whole
from keras import layers
from keras_models import Classifier, MaskedTokens, Normed, SumClassifier, cross_entropy, points

from smlt.core.errors import TaskError
from smlt.core.task import Loss, StepLoss
from smlt.frameworks.keras import KerasTask


@pytest.mark.parametrize(
    ("task", "fleets"),
    [(Classifier, [(2, None), (3, 2), (4, 1)]), (SumClassifier, [(2, 3)]), (MaskedTokens, [(2, None)])],
)
def test_the_course_does_not_depend_on_the_number_of_workers(task: type[KerasTask], fleets: list[Any]) -> None:
    alone = Fleet(task, steps=20, clip_norm=1.0).run()
    for ranks, micro in fleets:
        fleet = Fleet(task, ranks, steps=20, clip_norm=1.0, micro_batch=micro).run()
        assert fleet.losses[-1].mean == pytest.approx(alone.losses[-1].mean, rel=1e-3)
        assert [loss.weight for loss in fleet.losses] == [loss.weight for loss in alone.losses]
        assert len({str(whole(fleet, rank)) for rank in range(ranks)}) == 1


def test_sample_weights_follow_keras_own_reduction() -> None:
    class Weighted(Classifier):
        def train_data(self) -> Any:
            x, y = points()
            return x, y, np.linspace(0, 2, len(x))

    fleet = Fleet(Weighted, ranks=2, steps=1)
    rows = np.concatenate([work.indices for work in fleet.next_work()])
    x, y, weights = (part[rows] for part in fleet.tasks[0].train_data())
    model = fleet.tasks[0].model
    expected = float(model.compute_loss(x=x, y=y, y_pred=model(x), sample_weight=weights))
    assert fleet.run().losses[0].mean == pytest.approx(expected, rel=1e-5)


def test_more_workers_than_examples_leave_some_without_any() -> None:
    fleet = Fleet(Normed, ranks=3, batch=2, steps=2)
    memory, losses = fleet.compute()
    assert losses[2] == StepLoss(0.0, 0.0)
    assert not memory[2][0].any()
    fleet.commit(memory, losses)
    assert whole(fleet.run(3), 0) == whole(fleet, 1) == whole(fleet, 2)
    assert fleet.losses[0].weight == 2


def test_batch_statistics_are_averaged_and_integers_are_those_of_rank_0() -> None:
    fleet = Fleet(Normed, ranks=2, steps=1)
    shares = [work.indices for work in fleet.next_work()]
    x, model = fleet.tasks[0].train_data()[0], fleet.tasks[0].model
    means = [0.1 * np.asarray(model.layers[0](x[share])).mean(0) for share in shares]
    fleet.run()
    arrays = fleet.ranks[1].shared_state().arrays
    averaged = arrays["model/sequential/batch_normalization/moving_mean"]
    np.testing.assert_allclose(averaged, np.mean(means, 0), rtol=1e-5, atol=1e-7)
    assert arrays["model/sequential/counter/seen"] == len(shares[0])


def test_statistics_of_frozen_layers_do_not_travel_and_keep_their_bits() -> None:
    class Frozen(Classifier):
        def build_model(self) -> keras.Model:
            scale = layers.Normalization(mean=0.1, variance=3.3)
            base = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.BatchNormalization()], name="base")
            base.trainable = False
            model = keras.Sequential([keras.Input((6,)), scale, base, layers.BatchNormalization(), layers.Dense(3)])
            model.compile("adam", cross_entropy())
            return model

    fleet = Fleet(Frozen, ranks=3, steps=1)
    assert fleet.shapes[0].regions[1].elements == 2 * 8
    before = raw(fleet.ranks[0].model_arrays()[0])
    after = raw(fleet.run().ranks[0].model_arrays()[0])
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in after if not name.startswith("base/")}
    assert len(changed) == 6


def test_a_frozen_layer_that_changes_is_refused() -> None:
    class Drifting(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.total = self.add_weight(shape=(), initializer="zeros", trainable=False, name="total")

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.total.assign_add(1.0)
            return inputs

    class Mine(Classifier):
        def build_model(self) -> keras.Model:
            model = keras.Sequential([keras.Input((6,)), Drifting(trainable=False), layers.Dense(3)])
            model.compile("adam", cross_entropy())
            return model

    with pytest.raises(TaskError, match="frozen layer's variable sequential/drifting/total changes"):
        Fleet(Mine)


def test_a_step_that_weighs_nothing_is_refused() -> None:
    class Nothing(SumClassifier):
        def training_step(self, model: keras.Model, batch: Any) -> Loss:
            loss = super().training_step(model, batch)
            return Loss(loss.sum * 0.0, loss.weight * 0.0)

    fleet = Fleet(Nothing, ranks=2)
    with pytest.raises(TaskError, match=r"the losses of step 0 weigh 0\.0 in all"):
        fleet.run(1)
