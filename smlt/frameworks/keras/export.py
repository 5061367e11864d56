"""The trained model as files know it: weights by stable names, read back into a model built by the same code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load_file

from smlt.core.errors import TaskError
from smlt.core.task import Array

ModelT = TypeVar("ModelT")


def weight_names(model: Any) -> dict[str, Any]:
    """The model's weights by stable names; random states are none."""
    from smlt.frameworks.keras.names import model_names

    weights = {id(each) for each in model.weights}
    return {name: each for name, each in model_names(model).items() if id(each) in weights}


def load_model(path: str | Path, model: ModelT) -> ModelT:
    """Load the weights of a run into a Keras model.

    Args:
        path: the run's `model.safetensors`.
        model: built as the task's `build_model` does; filled in place.

    Returns:
        The same model.

    Raises:
        TaskError: there is no such file, it is torn, or it is not this model's.
    """
    from smlt.frameworks.keras.state import Variables

    if not Path(path).is_file():
        raise TaskError(f"there is no model at {path}", "a run's result.model_path says where its model is")
    try:
        arrays: dict[str, Array] = load_file(str(path))
    except SafetensorError as error:
        raise TaskError(f"{path} cannot be read: {error}") from error
    variables = Variables(weight_names(model))
    variables.write(variables.fitting(arrays, str(path)))
    return model
