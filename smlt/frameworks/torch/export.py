"""The trained model as files know it: names as in `state_dict`, each storage once, aliases for tied weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.torch.memory import NUMPY_DTYPES, array_of, contiguous

ALIASES = "smlt.aliases"
"""Key of the file's metadata: a JSON object, alias -> the name that holds its array."""

ModelT = TypeVar("ModelT", bound=nn.Module)


def model_arrays(model: nn.Module) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays by name, and aliases; dtypes that numpy lacks (a frozen bfloat16 base) become float32, which is exact."""
    arrays: dict[str, Array] = {}
    aliases: dict[str, str] = {}
    names: dict[tuple[object, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue  # a module's extra state, which no array can hold
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if place in names:
            aliases[name] = names[place]
            continue
        names[place] = name
        arrays[name] = contiguous(array_of(tensor if tensor.dtype in NUMPY_DTYPES else tensor.float()))
    return arrays, aliases


def load_model(path: str | Path, model: ModelT) -> ModelT:
    """Load the weights of a run into a plain module.

    Args:
        path: the run's `model.safetensors`.
        model: built as the task's `build_model` does; filled in place.

    Returns:
        The same model.

    Raises:
        TaskError: there is no such file, it is torn, or it is not this model's.
    """
    if not Path(path).is_file():
        raise TaskError(f"there is no model at {path}", "a run's result.model_path says where its model is")
    try:
        with safe_open(str(path), framework="pt") as file:
            aliases = json.loads((file.metadata() or {}).get(ALIASES, "{}"))
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise TaskError(f"{path} cannot be read: {error}") from error
    tensors |= {alias: tensors[name] for alias, name in aliases.items()}
    try:
        outcome = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise TaskError(f"{path} does not fit the model: {error}") from error
    missing = [name for name in outcome.missing_keys if not name.endswith("_extra_state")]
    if missing or outcome.unexpected_keys:
        raise TaskError(
            f"{path} is of another model: missing {missing or 'none'}, surplus {outcome.unexpected_keys or 'none'}",
            "build the model with the same parameters as in the run",
        )
    return model
