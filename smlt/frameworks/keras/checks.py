"""What a task must have before anything of it is built, and what its model must be like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.blame import overridden
from smlt.frameworks.hooks import check_pairs, checked_prepared
from smlt.frameworks.keras import defaults
from smlt.frameworks.keras.names import model_names
from smlt.frameworks.keras.task import KerasTask


def check_hooks(task: KerasTask) -> None:
    """Raise TaskError for a hook that is missing, or for options that make no sense together."""
    name = type(task).__name__
    for hook in ("build_model", "train_data"):
        if not overridden(task, hook, KerasTask):
            raise TaskError(f"{name} has no {hook}", f"define {hook} in {name}; see the docstring of KerasTask.{hook}")
    check_pairs(task, KerasTask, task.eval_batch)


def check_model(task: KerasTask, model: Any) -> None:
    """Raise TaskError unless this is a compiled Keras model whose loss and steps smlt can stand in for."""
    if not isinstance(model, keras.Model):
        raise TaskError(f"build_model returned a {type(model).__name__}", "return a compiled keras.Model")
    if not model.compiled or model.optimizer is None:
        raise TaskError(
            "build_model returned a model that is not compiled",
            "call model.compile(optimizer, loss, metrics=[...]) before returning it",
        )
    for method, hook in (("train_step", "training_step"), ("test_step", "eval_step")):
        own = getattr(type(model), method) is not getattr(keras.Model, method)
        if own and not overridden(task, hook, KerasTask):
            raise TaskError(
                f"{type(model).__name__} has a {method} of its own, which smlt does not run",
                f"move it into the task's {hook}(self, model, batch)",
            )
    if not overridden(task, "training_step", KerasTask):
        defaults.check_loss(model)


def trained_variables(model: Any) -> list[Any]:
    """What is trained; raises TaskError if that is nothing, or not float32."""
    trained = list(model.trainable_variables)
    if not trained:
        raise TaskError("the model has no trainable variables", "leave trainable on for some of its layers")
    names = {id(variable): name for name, variable in model_names(model).items()}
    for variable in trained:
        if variable.dtype != "float32":
            raise TaskError(
                f"the variable {names[id(variable)]} is {variable.dtype}, and smlt trains float32 variables",
                'keep float32 variables, and use [train].precision = "bf16" for speed',
            )
    return trained


def check_prepared(prepared: Any) -> Mapping[str, Array] | None:
    """What `prepare_data` returned, as arrays; raises TaskError for anything else."""
    return checked_prepared(prepared, lambda value: np.asarray(value) if tf.is_tensor(value) else value)
