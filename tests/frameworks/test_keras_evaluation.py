"""Evaluation: the compiled metrics over all ranks, one's own, and that nothing changes by it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from fleet import Fleet, whole
from keras import layers, ops
from keras_models import Classifier, MaskedTokens, Normed, SumClassifier, points

from smlt.core.errors import TaskError
from smlt.core.task import EvalPart, Metric


class Weighed(Normed):
    """Metrics of all kinds that are means."""

    eval_batch = 5

    def build_model(self) -> keras.Model:
        model = super().build_model()
        mean = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="xent")
        model.compile("adam", model.loss, metrics=["accuracy", mean], weighted_metrics=["accuracy"])
        return model

    def train_data(self) -> Any:
        x, y = points()
        return x, y, np.ones(len(x))

    def eval_data(self) -> Any:
        x, y = points(23, seed=6)
        return x, y, np.linspace(0.1, 2, 23)


def test_compiled_metrics_over_all_ranks_are_those_of_model_evaluate() -> None:
    fleet = Fleet(Weighed, ranks=2, steps=4).run()
    before = whole(fleet)
    metrics = fleet.evaluate()
    assert whole(fleet) == before
    x, y, weights = fleet.tasks[0].eval_data()
    expected = fleet.tasks[0].model.evaluate(x, y, sample_weight=weights, batch_size=23, verbose=0, return_dict=True)
    expected["eval_loss"] = expected.pop("loss")
    assert set(metrics) == {"eval_loss", "accuracy", "weighted_accuracy", "xent"}
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_masked_values_do_not_count() -> None:
    fleet = Fleet(MaskedTokens, ranks=2, steps=2)
    x, y = fleet.tasks[0].eval_data()
    rows = np.concatenate([work.indices for work in fleet.next_work()])
    assert fleet.run().losses[0].weight == np.count_nonzero(x[rows])
    model = fleet.tasks[0].model
    right = (np.asarray(model(x)).argmax(-1) == y)[x != 0]
    expected = float(model.compute_loss(x=x, y=y, y_pred=model(x)))
    assert fleet.evaluate() == pytest.approx({"eval_loss": expected, "accuracy": right.mean()}, rel=1e-5)


def test_means_weigh_as_much_as_their_batch_and_a_metric_as_it_says() -> None:
    fleet = Fleet(SumClassifier, ranks=3, steps=2).run()
    x, y = fleet.tasks[0].eval_data()
    right = (np.asarray(fleet.tasks[0].model(x)).argmax(1) == y).mean()
    assert fleet.evaluate() == pytest.approx({"accuracy": right, "right": right})


def test_eval_end_sees_the_outputs_of_all_ranks_in_order() -> None:
    class Ranked(SumClassifier):
        def eval_step(self, model: keras.Model, batch: Any) -> dict[str, Any]:
            return {"x": batch[0], "pair": Metric(ops.sum(batch[1]), 1), "half": ops.cast(batch[0], "bfloat16")}

        def eval_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
            np.testing.assert_array_equal(np.concatenate([each["x"] for each in outputs]), points(23, seed=6)[0])
            assert outputs[0]["half"].dtype == np.float32
            return {"batches": len(outputs), "sum": sum(each["pair"].sum for each in outputs)}

    fleet = Fleet(Ranked, ranks=2)
    assert fleet.evaluate() == {"batches": 6, "sum": points(23, seed=6)[1].sum()}


def test_an_evaluation_that_draws_random_numbers_repeats_and_changes_nothing() -> None:
    class Dropped(Normed):
        def eval_data(self) -> Any:
            return points(23, seed=6)

        def eval_step(self, model: keras.Model, batch: Any) -> dict[str, Any]:
            return {"mean": ops.mean(model(batch[0], training=True))}

    fleet = Fleet(Dropped)
    before = whole(fleet)
    assert fleet.evaluate() == fleet.evaluate()
    assert whole(fleet) == before


def test_without_evaluation_data_there_are_no_metrics() -> None:
    fleet = Fleet(Classifier)
    assert fleet.shapes[0].eval_examples == 0
    assert fleet.ranks[0].evaluate(np.arange(0)) == EvalPart()
    assert fleet.evaluate() == {}


@pytest.mark.parametrize("metric", [keras.metrics.RootMeanSquaredError, keras.metrics.AUC, keras.metrics.R2Score])
def test_a_compiled_metric_that_is_no_mean_is_refused(metric: Any) -> None:
    class Mine(Classifier):
        def build_model(self) -> keras.Model:
            model = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
            model.compile("sgd", "mse", metrics=[metric(name="odd")])
            return model

        def train_data(self) -> Any:
            x, y = points()
            return x, (y[:, None] > 1).astype(np.float32)

        def eval_data(self) -> Any:
            return self.train_data()

    with pytest.raises(TaskError, match=rf"the compiled metric odd \({metric.__name__}\) is no mean") as caught:
        Fleet(Mine)
    assert "eval_end" in caught.value.hint


def test_outputs_that_are_no_numbers_are_refused() -> None:
    class Vector(SumClassifier):
        def eval_step(self, model: keras.Model, batch: Any) -> dict[str, Any]:
            return {"vector": batch[1]}

    with pytest.raises(TaskError, match=r"eval_step returned no number for 'vector': shape \[2\]"):
        Fleet(Vector)
