"""Plain data and back: what a scheduler or a user's `state` holds, as numbers, strings, lists and maps; never pickle.

Tensors and arrays leave for a dictionary of arrays; what plain data lacks (tuples, maps with other keys) is tagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smlt.core.errors import TaskError
from smlt.core.task import Array
from smlt.frameworks.torch.memory import array_of, contiguous, copy_into, fits

TAG = "!"
_INT64 = range(-(1 << 63), 1 << 63)


def encode(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Plain data for `value`, exactly.

    Args:
        value: numbers, strings, None, lists, tuples, maps, tensors and numpy arrays, nested as deep as need be.
        path: where it stands, for the names of arrays and for errors: "user/ema".
        arrays: takes the tensors and arrays, under their paths.

    Raises:
        TaskError: something else is in it.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int):
        return int(value) if value in _INT64 else {TAG: "int", "digits": str(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        items = [encode(item, f"{path}/{place}", arrays) for place, item in enumerate(value)]
        return items if isinstance(value, list) else {TAG: "tuple", "items": items}
    if isinstance(value, Mapping):
        return _encode_map(value, path, arrays)
    if isinstance(value, Tensor | np.ndarray):
        return _encode_array(value, path, arrays)
    raise TaskError(
        f"{path} holds a {type(value).__name__}, which cannot be saved",
        "state is made of numbers, strings, lists, maps, tensors and arrays",
    )


def decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    """What `encode` was given; tensors and arrays are copies."""
    if isinstance(value, list | tuple):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, Mapping):
        return value
    match value.get(TAG):
        case "int":
            return int(value["digits"])
        case "tuple":
            return tuple(decode(value["items"], arrays))
        case "map":
            pairs = [(decode(key, arrays), decode(item, arrays)) for key, item in value["pairs"]]
            return Counter(dict(pairs)) if value["counter"] else dict(pairs)
        case "tensor" | "array":
            return _decode_array(value, arrays)
        case _:
            return {key: decode(item, arrays) for key, item in value.items()}


def _encode_map(value: Mapping[Any, Any], path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    counts = isinstance(value, Counter)
    if all(isinstance(key, str) for key in value) and TAG not in value and not counts:
        return {key: encode(item, f"{path}/{key}", arrays) for key, item in value.items()}
    pairs = [[encode(key, path, arrays), encode(item, f"{path}/{key}", arrays)] for key, item in value.items()]
    return {TAG: "map", "counter": counts, "pairs": pairs}


def _encode_array(value: Tensor | Array, path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    tensor = isinstance(value, Tensor)
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise TaskError(f"{path} is an array of Python objects, which cannot be saved")
    array = array_of(value) if isinstance(value, Tensor) else value
    arrays[path] = contiguous(array)
    dtype = str(value.dtype).removeprefix("torch.")
    return {TAG: "tensor" if tensor else "array", "name": path, "dtype": dtype, "shape": list(value.shape)}


def _decode_array(value: Mapping[str, Any], arrays: Mapping[str, Array]) -> Tensor | Array:
    name = value["name"]
    if name not in arrays:
        raise TaskError(f"the saved state lacks {name}")
    if value[TAG] == "array":
        return arrays[name].reshape(value["shape"]).copy()
    tensor = torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]))
    copy_into(tensor, fits(tensor, arrays[name], name))
    return tensor
