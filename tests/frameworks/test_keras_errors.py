"""What a user sees who forgot something, or whose code raised: which hook, which file and line, how to mend it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fleet import Fleet
from keras import layers
from keras_models import Classifier, Judged, cross_entropy, points

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import Loss
from smlt.frameworks.keras import KerasTask
from smlt.frameworks.keras.environment import import_frameworks


def task(**members: Any) -> type[KerasTask]:
    """A task with some members replaced; with data to evaluate it on where that matters."""
    base = Judged if {"eval_data", "eval_step"} & set(members) else Classifier
    return type("Mine", (base,), members)


def told(mine: type[KerasTask], steps: int = 1, **context: Any) -> TaskError:
    """What the user is told."""
    with pytest.raises(TaskError) as caught:
        Fleet(mine, **context).run(steps)
    return caught.value


def model_with(build: Any = None, **compiled: Any) -> Any:
    """A build_model of a small model, compiled in some way."""

    def build_model(self: Any) -> keras.Model:
        model = keras.Sequential([keras.Input((6,)), *(build() if build else [layers.Dense(3)])])
        made = {name: value() if name == "optimizer" else value for name, value in compiled.items()}
        model.compile(**({"optimizer": "sgd", "loss": cross_entropy()} | made))
        return model

    return build_model


def fails(*_: Any) -> Any:
    raise ValueError("too hot")


HOOKS = ("prepare_data", "build_model", "train_data", "eval_data", "sampler", "training_step", "eval_step")


@pytest.mark.parametrize("hook", [*HOOKS, "before_optimizer_step"])
def test_an_exception_of_the_users_names_hook_file_and_line(hook: str) -> None:
    error = told(task(**{hook: fails}))
    line = fails.__code__.co_firstlineno + 1
    assert error.message == f"{hook} raised ValueError: too hot (test_keras_errors.py:{line})"
    assert isinstance(error.__cause__, ValueError)


def test_an_operation_that_fails_in_the_graph_is_traced_to_its_line() -> None:
    def training_step(self: Any, model: keras.Model, batch: Any) -> Any:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1] + 7, model(batch[0])))

    error = told(task(training_step=training_step))
    line = training_step.__code__.co_firstlineno + 1
    assert error.message.startswith("training_step raised InvalidArgumentError: indices[0] = ")
    assert error.message.endswith(f"(test_keras_errors.py:{line})")
    assert "node" not in error.message


def test_python_branches_on_tensors_point_to_keras_ops() -> None:
    def training_step(self: Any, model: keras.Model, batch: Any) -> Any:
        return model(batch[0]) if batch[0][0, 0] > 0 else 0

    error = told(task(training_step=training_step))
    assert "run_eagerly" in error.hint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"build_model": KerasTask.build_model}, "Mine has no build_model"),
        ({"train_data": KerasTask.train_data}, "Mine has no train_data"),
        ({"state": lambda self: {}}, "Mine has one of state and load_state"),
        ({"eval_batch": 0}, "Mine.eval_batch is 0"),
        ({"prepare_data": lambda self: 3}, "prepare_data returned a int"),
        ({"train_data": lambda self: (np.zeros((0, 6)), np.zeros(0))}, "train_data has no examples"),
        ({"build_model": lambda self: 3}, "build_model returned a int"),
        ({"build_model": lambda self: keras.Sequential([keras.Input((6,))])}, "a model that is not compiled"),
        ({"build_model": model_with(lambda: [layers.Flatten()])}, "the model has no trainable variables"),
        ({"build_model": model_with(lambda: [layers.Dense(3, dtype="float64")])}, "dense/kernel is float64"),
        (
            {"build_model": model_with(lambda: [layers.Dense(3, dtype="bfloat16", trainable=False), layers.Dense(3)])},
            "the variable sequential/dense/kernel is bfloat16",
        ),
        ({"build_model": model_with(loss=keras.losses.MeanSquaredError("sum"))}, "has reduction='sum'"),
        ({"build_model": model_with(loss=None)}, "on two examples raised ValueError: No loss to compute"),
        ({"build_model": model_with(lambda: [layers.Dense(3), layers.Reshape((9,))])}, "build_model raised ValueError"),
        (
            {"build_model": model_with(optimizer=lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))},
            "LossScaleOptimizer scales the loss",
        ),
        (
            {"build_model": model_with(optimizer=lambda: keras.optimizers.SGD(use_ema=True))},
            "an average of the weights",
        ),
        ({"training_step": lambda self, model, batch: 3}, "training_step returned a int for a loss"),
        ({"training_step": lambda self, model, batch: model(batch[0])[0]}, r"a loss of shape \[3\], dtype float32"),
        ({"training_step": lambda self, model, batch: tf.constant(1.0)}, "does not depend on the model's trainable"),
        (
            {"training_step": lambda self, model, batch: Loss(tf.reduce_sum(model(batch[0])), -1.0)},
            r"a Loss of weight -1\.0",
        ),
        (
            {"training_step": lambda self, model, batch: tf.reduce_sum(model(batch[0])) * tf.random.normal(())},
            "RandomStandardNormal, which gives other values",
        ),
        (
            {"training_step": lambda self, model, batch: tf.reduce_sum(model(batch[0])) * self.step},
            r"self\.step would stay what it was",
        ),
        ({"eval_step": lambda self, model, batch: 3}, "eval_step returned a int"),
    ],
)
def test_mistakes_are_named(members: dict[str, Any], message: str) -> None:
    error = told(task(**members))
    assert re.search(message, error.message), error.message
    assert error.hint or "raised" in error.message or "has no examples" in error.message


def test_a_models_own_train_step_is_not_passed_over_silently() -> None:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> Any: ...

    def build_model(self: Any) -> keras.Model:
        model = Own([keras.Input((6,)), layers.Dense(3)])
        model.compile("sgd", cross_entropy())
        return model

    error = told(task(build_model=build_model))
    assert error.message == "Own has a train_step of its own, which smlt does not run"


def test_wrong_shapes_are_told_without_keras_arguments() -> None:
    error = told(task(train_data=lambda self: (np.zeros((9, 5)), np.zeros(9))))
    assert error.message.startswith("the compiled model on two examples raised ValueError: Exception encountered when")
    assert "\x1b" not in error.message
    assert "Arguments received" not in error.message


def test_a_model_is_built_by_its_first_examples() -> None:
    def build_model(self: Any) -> keras.Model:
        model = keras.Sequential([layers.Dense(3)])
        model.compile("sgd", cross_entropy())
        return model

    assert Fleet(task(build_model=build_model)).shapes[0].parameters == 21


def test_variables_that_come_late_are_refused() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.late = layers.Dense(3), layers.Dense(2)

        def build(self, shape: Any) -> None:
            self.body.build(shape)

        def call(self, inputs: Any) -> Any:
            return self.body(inputs)

    def build_model(self: Any) -> keras.Model:
        model = Net()
        model(np.zeros((1, 6)))
        model.compile("sgd", cross_entropy())
        return model

    def training_step(self: Any, model: Any, batch: Any) -> Any:
        return tf.reduce_mean(model.late(model(batch[0])))

    error = told(task(build_model=build_model, training_step=training_step))
    assert error.message == "the model's dense_1/bias, dense_1/kernel came into being in training_step"


def test_multiple_outputs_add_their_losses() -> None:
    def build_model(self: Any) -> keras.Model:
        inputs = keras.Input((6,))
        outputs = {"kind": layers.Dense(3, name="kind")(inputs), "size": layers.Dense(1, name="size")(inputs)}
        model = keras.Model(inputs, outputs)
        losses = {"kind": cross_entropy(), "size": "mse"}
        model.compile("sgd", losses, loss_weights={"kind": 1.0, "size": 0.5}, metrics={"kind": "accuracy"})
        return model

    def train_data(self: Any) -> Any:
        x, y = points()
        return x, {"kind": y, "size": x[:, :1]}

    mine = task(build_model=build_model, train_data=train_data, eval_data=train_data)
    fleet = Fleet(mine, ranks=2, steps=2).run()
    x, y = train_data(None)
    expected = fleet.tasks[0].model.evaluate(x, y, batch_size=37, verbose=0, return_dict=True)
    assert fleet.evaluate() == pytest.approx(
        {"eval_loss": expected["loss"], "kind_accuracy": expected["kind_accuracy"]}, rel=1e-5
    )


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(TaskError, match="Keras uses the backend jax") as caught:
        import_frameworks()
    assert "KERAS_BACKEND=tensorflow" in caught.value.hint


def test_threads_come_too_late_once_tensorflow_runs() -> None:
    assert "not while its file is imported" in told(Classifier, threads=3).hint


def test_a_commit_needs_a_step() -> None:
    fleet = Fleet(Classifier)
    memory, losses = fleet.compute()
    fleet.ranks[0].forget()
    with pytest.raises(SmltError, match="commit without compute"):
        fleet.commit(memory, losses)


def test_tensorflow_stays_outside_until_a_task_is_adapted() -> None:
    code = "import sys, smlt, smlt.core.task, smlt.frameworks.keras as k; k.KerasTask(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'smlt.frameworks.keras.task'" in done.stdout
    assert "'tensorflow'" not in done.stdout
    assert "'keras'" not in done.stdout
